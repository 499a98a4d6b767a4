package stepward_test

test_signing_needs_step_up_where_it_is_switched_on if {
	in_environment("strict", "wallet.sign").scopes == ["wallet:sign"]
}

test_step_up_switched_on_by_a_word_is_on if in_environment("worded", "wallet.sign").scopes == ["wallet:sign"]

test_below_the_floor_configured_actions_need_an_mfa_token if {
	q := in_environment("old", "wallet.export")
	q.mfa_action == "wallet.waas.export"
	not q.scopes
}

test_below_the_floor_other_operations_are_open if {
	q := in_environment("old", "wallet.sign")
	not q.mfa_action
	not q.scopes
}

test_lifetime_and_use_are_overridden_by_environment if {
	q := in_environment("impatient", "wallet.export")
	q.max_age == 60
	q.token == "time_bound"
}

test_always_cannot_be_switched_off if in_environment("lax", "wallet.export").scopes == ["wallet:export"]
