package stepward_test

import data.stepward

announcement := {"minimum_api_version": "2026_04_01", "deprecation": "2026-12-01", "sunset": "2027-02-01"}

minimums := {"WalletKit": "4.76.0", "ClientSDK": "0.24.1"}

known_environments := {
	"default": {"minimum_api_version": "2026_04_01", "minimum_sdk": minimums, "sdk_minimums": "advise", "step_up": {}, "mfa_actions": []},
	"strict": {"sdk_minimums": "enforce"},
	"deaf": {"sdk_minimums": "off"},
	"misspelt": {"sdk_minimums": "advice"},
	"old": {"minimum_api_version": "2026_01_01"},
	"old strict": {"minimum_api_version": "2026_01_01", "sdk_minimums": "enforce"},
	"warned": {
		"minimum_api_version": "2026_01_01",
		"announced": announcement,
		"mfa_actions": ["wallet.waas.sign"],
		"step_up": {"user.delete": true, "credential.merge": false},
	},
	"warned of little": {"minimum_api_version": "2025_01_01", "announced": object.union(announcement, {"minimum_api_version": "2026-01-01"})},
	"arrived": {"announced": announcement},
}

told(id, operation) := q if {
	q := stepward.requirement with input as {"operation": operation, "request": {}, "environment": {"id": id}}
		with data.stepward.environments as known_environments
}

test_an_older_sdk_is_told_and_not_refused if {
	q := told("unheard of", "user.read")
	q.advise_sdk == minimums
	not q.minimum_sdk
}

test_an_older_sdk_is_refused_where_minimums_are_enforced if {
	every id in ["strict", "old strict", "misspelt"] {
		q := told(id, "user.read")
		q.minimum_sdk == minimums
		not q.advise_sdk
	}
}

# What minimum_sdk meant before there were modes.
test_minimums_without_a_mode_are_enforced if {
	q := stepward.requirement with input as {"operation": "user.read", "request": {}, "environment": {"id": ""}}
		with data.stepward.environments as {"default": {"minimum_api_version": "2026_01_01", "minimum_sdk": minimums}}
	q.minimum_sdk == minimums
	not q.advise_sdk
}

test_minimums_can_be_off if {
	q := told("deaf", "wallet.export")
	not q.minimum_sdk
	not q.advise_sdk
}

test_nothing_is_advised_below_step_up if not told("old", "wallet.export").advise_sdk

test_advice_comes_with_the_announcement if told("warned", "user.read").advise_sdk == minimums

test_what_will_need_step_up_is_announced if {
	every operation in ["wallet.export", "credential.link", "wallet.sign", "user.delete", "wallet.export.legacy"] {
		q := told("warned", operation)
		q.announced == announcement
		not asks_for_step_up(q)
	}
}

# Beside an action-based MFA token an elevated one is accepted, and not asked for.
asks_for_step_up(q) if {
	q.scopes
	not q.mfa_action
}

test_what_will_stay_as_it_is_is_not_announced if {
	every operation in ["user.read", "credential.merge", "wallet.delete", "session.begin", "admin"] {
		not told("warned", operation).announced
	}
}

test_a_floor_without_step_up_changes_nothing if not told("warned of little", "wallet.export").announced

test_a_floor_that_has_come_is_not_announced_any_more if {
	q := told("arrived", "wallet.export")
	q.scopes == ["wallet:export"]
	not q.announced
}
