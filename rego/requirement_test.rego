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

test_a_governed_transfer_is_released_on_202 if asked("business_account.transfer_ownership", {}).release_on == [202]

test_every_route_names_an_operation if {
	every route in data.stepward.routes {
		known(route.operation)
	}
}

known("credential.verify")

known(name) if data.stepward.operations[name]
