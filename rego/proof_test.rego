package stepward_test

test_signing_needs_step_up_where_it_is_switched_on if {
	in_environment("strict", "wallet.sign").scopes == ["wallet:sign"]
}

test_step_up_switched_on_by_a_word_is_on if in_environment("worded", "wallet.sign").scopes == ["wallet:sign"]

test_below_the_floor_configured_actions_need_an_mfa_token if {
	q := in_environment("old", "wallet.export")
	q.mfa_action == "wallet.waas.export"
	q.mfa_required == false
}

test_below_the_floor_an_elevated_token_is_accepted_in_place if {
	q := in_environment("old", "wallet.export")
	q.scopes == ["wallet:export"]
	q.token == "single_use"
	q.max_age == 300
}

test_an_environment_may_require_a_second_factor if {
	in_environment("all enrolled", "wallet.export").mfa_required
	in_environment("all enrolled", "wallet.recover").mfa_required
	not "mfa_required" in object.keys(in_environment("all enrolled", "wallet.sign"))
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

test_inferred_demands_hold_unless_they_are_switched_off if {
	in_environment("strict", "credential.merge").scopes == ["credential:link"]
	in_environment("worded", "credential.merge").scopes == ["credential:link"]
	not in_environment("lax", "credential.merge").scopes
	not in_environment("old", "credential.merge").scopes
}

# Raising the version must not drop what was asked for below it.
test_configured_actions_carry_over if {
	q := in_environment("raised", "wallet.sign")
	q.scopes == ["wallet:sign"]
	not q.mfa_action
	not in_environment("raised", "wallet.refresh").scopes
}

test_an_action_without_scopes_keeps_its_token if {
	in_environment("raised", "wallet.recover").mfa_action == "wallet.waas.offline_recovery_trigger"
	not in_environment("raised", "wallet.recover").scopes
	not in_environment("strict", "wallet.recover").mfa_action
}

test_what_dynamic_leaves_open_is_open_until_it_is_switched_on if {
	every operation in gaps {
		not in_environment("", operation).scopes
		count(in_environment("guarded", operation).scopes) == 1
	}
}
