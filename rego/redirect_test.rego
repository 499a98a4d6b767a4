package stepward_test

import data.stepward

home := ["https://app.example", "http://localhost:3000", "myapp://"]

returning(operation, request) := q if {
	q := stepward.requirement with input as {"operation": operation, "request": request, "environment": {"id": "homely"}}
		with data.stepward.environments as {
			"default": {"minimum_api_version": "2026_04_01"},
			"homely": {"redirect_origins": home},
			"closed": {"redirect_origins": []},
		}
}

led_away(q) if q.deny.code == "redirect_not_allowed"

targets_at_home := [
	"https://app.example", "https://app.example/", "https://app.example/a?b=https://evil.example#c", "https://app.example?x", "https://app.example#x",
	"http://localhost:3000/cb", "myapp://", "myapp://callback/x",
]

targets_elsewhere := [
	"https://evil.example", "https://app.example.evil.example", "https://app.example@evil.example", "https://app.example:443@evil.example",
	"https://app.example:8443", "https://app.example:", "https://app.example.", "https://app.example.:443/", "HTTPS://app.example", "https://APP.example/",
	"http://app.example", "https://app.example\\@evil.example", "https://app.example/\\evil.example", "https:\\\\app.example", "https:/app.example",
	"https:app.example", "//app.example", "/", "", "null", " https://app.example", "https://app.example\t.evil.example", "https://app.example\n/",
	"https://app.examplé", "https://user@app.example", "https://app.example%2eevil.example", "https://app.exampl", "javascript:alert(1)", "data:text/html,x",
	"myapp:", "myapp:/x", "MyApp://x", "xmyapp://x", "http://localhost:30001", "http://localhost",
]

test_targets_on_the_list_pass if {
	every target in targets_at_home {
		not returning("session.begin", {"headers": {"origin": [target]}}).deny
		not returning("session.begin", {"body": {"redirectUrl": target, "state": "x"}}).deny
		not returning("session.begin", {"query": {"redirect_uri": [target]}}).deny
		not returning("session.begin", {"body": {"state": concat("", ["abc_client-redirect:", target])}}).deny
		not returning("session.begin", {"query": {"state": [concat("", ["abc_client-redirect:", target])]}}).deny
	}
}

test_other_targets_are_refused if {
	every target in targets_elsewhere {
		led_away(returning("session.begin", {"headers": {"origin": [target]}}))
		led_away(returning("session.begin", {"body": {"redirectUrl": target}}))
		led_away(returning("session.begin", {"query": {"redirect_uri": [target]}}))
		led_away(returning("session.begin", {"body": {"state": concat("", ["abc_client-redirect:", target])}}))
		led_away(returning("session.begin", {"query": {"state": [concat("", ["abc_client-redirect:", target])]}}))
	}
}

test_one_good_target_does_not_excuse_another if {
	led_away(returning("session.begin", {"headers": {"origin": ["https://app.example"]}, "body": {"redirectUrl": "https://evil.example"}}))
	led_away(returning("session.begin", {"query": {"redirect_uri": ["https://app.example", "https://evil.example"]}}))
	led_away(returning("session.begin", {"body": {"state": "a_client-redirect:myapp://_client-redirect:evil://"}}))
}

test_targets_of_another_type_are_refused if {
	every odd in [7, true, ["https://app.example"], {"a": "https://app.example"}] {
		led_away(returning("session.begin", {"body": {"redirectUrl": odd}}))
		led_away(returning("session.begin", {"body": {"state": odd}}))
	}
}

test_who_names_no_target_is_the_backends_to_judge if {
	not returning("session.begin", {}).deny
	not returning("session.begin", {"body": {"redirectUrl": null, "state": null}}).deny
	not returning("session.begin", {"body": {"state": "abc"}}).deny
	not returning("session.begin", {"body": ["redirectUrl"]}).deny
}

test_device_registration_comes_from_home_too if {
	led_away(returning("device.register", {"headers": {"origin": ["https://evil.example"]}}))
	returning("device.register", {"headers": {"origin": ["https://app.example"]}}).device == "any"
}

test_sign_ins_that_the_body_decides_are_looked_at if {
	led_away(returning("session.verify", {"headers": {"origin": ["https://evil.example"]}, "body": {}}))
}

# Dynamic's own frame signs with an origin of its own.
test_other_operations_are_not_looked_at if {
	not returning("wallet.sign", {"headers": {"origin": ["https://evil.example"]}}).deny
	not returning("session.callback", {"headers": {"origin": ["https://appleid.apple.com"]}}).deny
}

test_without_a_list_nothing_is_refused if {
	not asked("session.begin", {"redirectUrl": "https://evil.example"}).deny
}

test_an_empty_list_refuses_every_target if {
	q := stepward.requirement with input as {"operation": "session.begin", "request": {"headers": {"origin": ["https://app.example"]}}, "environment": {"id": "closed"}}
		with data.stepward.environments as {"default": {"minimum_api_version": "2026_04_01"}, "closed": {"redirect_origins": []}}
	led_away(q)
}
