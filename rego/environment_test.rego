package stepward_test

import data.stepward

environments := {
	"default": {"minimum_api_version": "2026_04_01", "step_up": {}, "mfa_actions": []},
	"old": {"minimum_api_version": "2026_01_01", "mfa_actions": ["wallet.waas.export"]},
	"all enrolled": {
		"minimum_api_version": "2026_01_01",
		"mfa_actions": ["wallet.waas.export", "wallet.waas.offline_recovery_trigger"],
		"mfa_required": true,
	},
	"impatient": {"max_age": {"wallet.export": 60}, "token": {"wallet.export": "time_bound"}},
	"lax": {"step_up": {"wallet.export": false, "credential.merge": false}},
	"dashed": {"minimum_api_version": "2026-04-01"},
	"dashed old": {"minimum_api_version": "2026-01-01", "mfa_actions": ["wallet.waas.export"]},
	"worded": {"step_up": {"wallet.sign": "yes", "credential.merge": "no"}},
	"raised": {"mfa_actions": ["wallet.waas.sign", "wallet.waas.offline_recovery_trigger"]},
	"guarded": {"step_up": {name: true | some name in gaps}},
	"proven": {"device_proof": ["device.revoke", "credential.link"]},
	"by cookie": {"device_proof": ["device.revoke"], "device_cookie": true},
	"by a word": {"device_proof": ["device.revoke"], "device_cookie": "true"},
	"strict": {"step_up": {"wallet.sign": true}, "minimum_sdk": {"WalletKit": "4.76.0"}},
}

gaps := {
	"business_account.policy.update", "business_account.proposal.execute", "business_account.proposal.withdraw",
	"business_account.update", "business_account.wallet.create", "credential.oauth_token", "credential.recovery", "device.revoke",
	"exchange.transfer", "wallet.backup", "wallet.delegate", "wallet.legacy.recovery", "wallet.legacy.secret", "wallet.policy.update",
}

in_environment(id, operation) := q if {
	q := stepward.requirement with input as {"operation": operation, "request": {}, "environment": {"id": id}}
		with data.stepward.environments as environments
}

test_an_unlisted_environment_gets_the_newest_behaviour if {
	in_environment("unheard of", "wallet.export").minimum_api_version == "2026_04_01"
	in_environment("", "wallet.export").scopes == ["wallet:export"]
}

test_both_spellings_of_a_version_mean_the_same if {
	in_environment("dashed", "wallet.export").scopes == ["wallet:export"]
	in_environment("dashed old", "wallet.export").mfa_action == "wallet.waas.export"
}

test_an_environment_without_a_version_has_no_answer if {
	q := stepward.requirement with input as {"operation": "wallet.export", "environment": {"id": ""}}
		with data.stepward.environments as {"default": {"mode": "enforce"}}
	not q.operation
}

test_an_old_environment_keeps_its_version if in_environment("old", "wallet.export").minimum_api_version == "2026_01_01"

test_missing_members_come_from_the_default if in_environment("strict", "wallet.export").minimum_api_version == "2026_04_01"

test_minimum_sdks_are_passed_on if in_environment("strict", "user.read").minimum_sdk == {"WalletKit": "4.76.0"}

test_a_proof_of_the_devices_key_is_asked_for_where_it_is_listed if {
	in_environment("proven", "device.revoke").device_proof == true
	in_environment("proven", "credential.link").device_proof == true
	in_environment("proven", "device.register").device_proof == false
	in_environment("", "device.revoke").device_proof == false
}

# The SDK sends none then. A word is not true, so it excuses nobody.
test_no_proof_is_asked_for_in_cookie_mode if {
	in_environment("by cookie", "device.revoke").device_proof == false
	in_environment("by a word", "device.revoke").device_proof == true
}

test_devices_are_managed_by_sessions_that_stand if {
	in_environment("", "device.revoke").recheck == true
	in_environment("", "device.register").recheck == true
	in_environment("", "wallet.read").recheck == false
}
