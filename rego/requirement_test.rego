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

test_only_a_list_of_names_requests_scopes if {
	every odd in ["x", {"a": true}, [""], ["a b"], [1], [["wallet:export"]], null, 7, true, ["wallet:export", null]] {
		q := asked("credential.verify", {"requestedScopes": odd})
		q.operation == "credential.link"
		q.scopes == ["credential:link"]
	}
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
		"POST /sdk/{environmentId}/users/mfa/register/passkey",
		"POST /sdk/{environmentId}/users/passkeys/register",
	] {
		data.stepward.routes[pattern].operation == "credential.link"
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

known("credential.verify")

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
