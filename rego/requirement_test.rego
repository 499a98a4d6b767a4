package stepward_test

import data.stepward

asked(operation, body) := q if {
	q := stepward.requirement with input as {
		"operation": operation,
		"request": {"body": body},
		"environment": {"id": "an-unlisted-one"},
	}
}

test_export_needs_a_single_use_token_of_its_scope if {
	q := asked("wallet.export", {})
	q.session == true
	q.device == "registered"
	q.scopes == ["wallet:export"]
	q.token == "single_use"
	q.max_age == 300
	q.minimum_api_version == "2026_04_01"
}

test_routes_that_the_body_decides_show_it if {
	every route in data.stepward.routes { shows_what_decides(route) }
}

shows_what_decides(route) if not data.stepward.by_body[route.operation]

shows_what_decides(route) if route.read_body >= 4096

test_signing_is_open_by_default if not asked("wallet.sign", {}).scopes

test_linking_and_unlinking_need_their_scopes if {
	asked("credential.link", {}).scopes == ["credential:link"]
	asked("credential.unlink", {}).scopes == ["credential:unlink"]
}

test_verifying_links_unless_scopes_are_requested if {
	asked("credential.verify", {}).operation == "credential.link"
	asked("credential.verify", {"requestedScopes": []}).operation == "credential.link"
	asked("credential.verify", {"requestedScopes": ["wallet:export"]}).operation == "stepup.verify"
}

test_no_list_is_no_request if asked("credential.verify", {"requestedScopes": null}).scopes == ["credential:link"]

# Some backends would overlook it and link, others would mint.
test_only_a_list_of_names_requests_scopes if {
	every odd in ["x", {"a": true}, {}, "", [""], ["a b"], [1], [["wallet:export"]], 7, true, false, ["wallet:export", null]] {
		every operation in object.keys(data.stepward.by_body) {
			refused_to_ask(asked(operation, {"requestedScopes": odd}))
		}
	}
}

refused_to_ask(q) if {
	q.operation == "stepup.refused"
	q.deny.code == "scope_not_requestable"
	not q.scopes
}

test_a_list_that_is_too_long_is_refused if {
	names := [name | some i in numbers.range(1, 65); name := sprintf("a%d", [i])]
	refused_to_ask(asked("stepup.request", {"requestedScopes": names}))
	asked("stepup.request", {"requestedScopes": array.slice(names, 0, 64)}).operation == "stepup.verify"
}

test_every_scope_of_a_user_may_be_asked_for if {
	every scope in ["wallet:export", "credential:link", "business_account:role:define", "user:delete", "a:new:one"] {
		asked("stepup.request", {"requestedScopes": [scope]}).operation == "stepup.verify"
		asked("credential.verify", {"requestedScopes": [scope]}).operation == "stepup.verify"
		asked("session.verify", {"requestedScopes": [scope]}).operation == "session.begin"
		asked("credential.verify.link", {"requestedScopes": [scope]}).scopes == ["credential:link"]
		asked("credential.verify.transfer", {"requestedScopes": [scope]}).operation == "credential.merge"
	}
}

# Names that a lenient backend could take for another one, or for many.
test_the_consoles_scopes_may_not_be_asked_for if {
	every scope in ["console:member:invite", "Console:MFA:reset", "console:", "*", "con*", " console:x", "\tconsole:x", "a,console:x", "a\u0000"] {
		every operation in object.keys(data.stepward.by_body) {
			refused_to_ask(asked(operation, {"requestedScopes": ["wallet:sign", scope]}))
		}
	}
}

asked_in(lists, operation, body) := q if {
	q := stepward.requirement with input as {"operation": operation, "request": {"body": body}, "environment": {"id": "narrow"}}
		with data.stepward.environments as {"default": {"minimum_api_version": "2026_04_01"}, "narrow": {"requested_scopes": lists}}
}

test_an_environment_has_lists_of_its_own if {
	narrow := {"allow": ["wallet:sign", "credential:*"]}
	asked_in(narrow, "stepup.request", {"requestedScopes": ["wallet:sign", "credential:link"]}).operation == "stepup.verify"
	refused_to_ask(asked_in(narrow, "stepup.request", {"requestedScopes": ["wallet:export"]}))
	refused_to_ask(asked_in(narrow, "stepup.request", {"requestedScopes": ["wallet:signs"]}))
	refused_to_ask(asked_in({"refuse": ["Wallet:export"]}, "stepup.request", {"requestedScopes": ["wallet:export"]}))
	refused_to_ask(asked_in({"refuse": ["a", "*"]}, "stepup.request", {"requestedScopes": ["wallet:export"]}))
	asked_in({"refuse": []}, "stepup.request", {"requestedScopes": ["console:sso:update"]}).operation == "stepup.verify"
}

test_lists_that_are_lost_allow_nothing if {
	every lost in [{}, {"allow": ["*"]}, {"refuse": []}, {"allow": [], "refuse": []}] {
		q := stepward.requirement with input as {
			"operation": "stepup.request",
			"request": {"body": {"requestedScopes": ["a"]}},
			"environment": {"id": ""},
		}
			with data.stepward.requested_scopes as lost
		refused_to_ask(q)
	}
}

test_a_role_that_is_lost_leaves_no_answer if {
	q := stepward.requirement with input as {"operation": "credential.verify", "request": {}, "environment": {"id": ""}}
		with data.stepward.by_body as {"credential.verify": {"requests_scopes": "stepup.verify"}}
	not q.operation
	r := stepward.requirement with input as {"operation": "credential.verify", "request": {}, "environment": {"id": ""}}
		with data.stepward.by_body as {}
	not r.operation
}

test_a_sign_in_may_link_a_factor_where_linking_may_be_asked_for if {
	asked("session.verify", {"allowNewMFALinking": true}).operation == "session.begin"
	every flag in [true, 1, "false"] {
		refused_to_ask(asked_in({"allow": ["wallet:*"]}, "session.verify", {"allowNewMFALinking": flag}))
	}
	every flag in [false, null] {
		asked_in({"allow": ["wallet:*"]}, "session.verify", {"allowNewMFALinking": flag}).operation == "session.begin"
	}
}

# The backend ignores it there, and links.
test_that_flag_does_not_excuse_a_link if {
	asked("credential.verify", {"allowNewMFALinking": true}).scopes == ["credential:link"]
}

# Payloads: {"sub":"a","scope":"wallet:sign  wallet:export"}, {"scope":"console:x"}, {"scope":["a"]}, {"sub":"a"}, [1].
test_an_assertion_asks_by_its_claim if {
	good := "e30.eyJzdWIiOiJhIiwic2NvcGUiOiJ3YWxsZXQ6c2lnbiAgd2FsbGV0OmV4cG9ydCJ9.c2ln"
	asked("stepup.request", {"jwt": good}).operation == "stepup.verify"
	refused_to_ask(asked_in({"allow": ["wallet:sign"]}, "stepup.request", {"jwt": good}))
	every odd in [
		"e30.eyJzY29wZSI6ImNvbnNvbGU6eCJ9.c2ln",
		"e30.eyJzY29wZSI6WyJhIl19.c2ln",
		"e30.eyJzdWIiOiJhIn0.c2ln",
		"e30.WzFd.c2ln",
		"e30.bm9uZQ.c2ln",
		"e30.a.c2ln",
		"e30.a+b=.c2ln",
		"e30..c2ln",
		"e30.e30",
		"",
		7,
		null,
		{"scope": "a"},
	] {
		refused_to_ask(asked("stepup.request", {"jwt": odd}))
	}
}

test_a_wallet_of_a_business_account_is_created_under_its_own_name if {
	asked("wallet.create", {"chains": ["SOL"]}).operation == "wallet.write"
	asked("wallet.create", {"businessAccountId": null}).operation == "wallet.write"
	asked("wallet.create", {"businessAccountId": "b"}).operation == "business_account.wallet.create"
	asked("wallet.create", {"businessAccountId": false}).operation == "business_account.wallet.create"
	asked("wallet.create", {"businessAccountId": "b", "requestedScopes": ["a"]}).operation == "business_account.wallet.create"
	not asked("wallet.create", {"businessAccountId": "b"}).scopes
}

test_naming_a_business_account_does_not_excuse_a_link if {
	asked("credential.verify", {"businessAccountId": "b"}).scopes == ["credential:link"]
}

test_the_administration_api_is_refused_to_everybody if {
	q := asked("admin", {})
	q.deny.code == "admin_route"
	q.session == false
}

test_a_body_that_is_no_object_links if {
	asked("credential.verify", ["requestedScopes"]).operation == "credential.link"
	asked("credential.verify", null).operation == "credential.link"
}

# stepward itself refuses misspelt members when it loads the data.
test_a_demand_without_lifetime_leaves_no_answer if {
	q := stepward.requirement with input as {"operation": "x", "environment": {"id": ""}}
		with data.stepward.operations as {"x": {"scopes": ["a"], "token": "single_use", "always": true}}
	not q.operation
}

test_registering_a_factor_is_linking_on_every_route if {
	every pattern in [
		"GET /sdk/{environmentId}/users/mfa/register/totp",
		"POST /sdk/{environmentId}/users/mfa/register/totp",
		"GET /sdk/{environmentId}/users/mfa/register/passkey",
		"POST /sdk/{environmentId}/users/mfa/register/passkey",
		"POST /sdk/{environmentId}/users/passkeys/register",
	] {
		asked(data.stepward.routes[pattern].operation, {}).scopes == ["credential:link"]
	}
}

test_an_expired_session_can_be_renewed_and_ended if not asked("session.keep", {}).session

# The always-on demands of the new behaviour hold in every environment that has it, whatever else the data says.
test_every_always_operation_needs_its_scopes if {
	every name, operation in data.stepward.operations {
		needs_what_it_says(name, operation)
	}
}

needs_what_it_says(_, operation) if not operation.always

needs_what_it_says(name, operation) if asked(name, {}).scopes == operation.scopes

test_a_step_up_is_open_to_unfinished_sign_ins if {
	q := asked("stepup.verify", {})
	q.session == true
	q.device == "any"
	not q.scopes
}

test_reads_need_a_registered_device if asked("wallet.read", {}).device == "registered"

test_device_registration_is_open_to_unregistered_devices if asked("device.register", {}).device == "any"

test_signing_in_needs_no_session if {
	q := asked("session.begin", {})
	q.session == false
	q.device == "any"
}

test_an_unknown_operation_is_denied if {
	asked("no.such.operation", {}).deny.code == "undecided"
	asked("", {}).deny.code == "undecided"
}

test_a_request_without_an_operation_is_denied if {
	q := stepward.requirement with input as {"request": {}, "environment": {"id": ""}}
	not q.operation
	q.deny.code == "undecided"
}

test_a_governed_transfer_is_released_on_202 if asked("business_account.transfer_ownership", {}).release_on == [202]

test_every_route_names_an_operation if {
	every route in data.stepward.routes {
		known(route.operation)
	}
}

known(name) if data.stepward.by_body[name]

known(name) if data.stepward.operations[name]

for_session(operation, scope) := q if {
	q := stepward.requirement with input as {
		"operation": operation,
		"request": {},
		"environment": {"id": ""},
		"session": {"scope": scope},
	}
}

test_a_form_can_be_filled_in_before_sign_in_is_complete if {
	for_session("user.update", "userDataForm").device == "any"
	for_session("user.check", "userDataForm").device == "any"
}

test_a_form_opens_nothing_else if for_session("wallet.read", "userDataForm").device == "registered"

test_a_form_does_not_excuse_the_device_or_the_second_factor if {
	for_session("user.update", "userDataForm device:register").device == "registered"
	for_session("user.update", "userDataForm requiresAdditionalAuth").device == "registered"
}

test_a_scope_that_only_contains_the_word_is_another_scope if {
	for_session("user.update", "notuserDataForm").device == "registered"
}

test_a_finished_sign_in_changes_nothing if for_session("user.update", "user:basic").device == "registered"

test_pending_mfa_can_list_its_methods if for_session("mfa.read", "requiresAdditionalAuth").device == "any"

test_without_a_session_there_is_no_device if for_session("session.keep", "").device == "any"

test_scopes_of_another_type_open_nothing if {
	for_session("user.update", ["userDataForm"]).device == "registered"
	for_session("user.update", null).device == "registered"
}
