# METADATA
# title: What a request must bring
# description: |
#   The one rule that Stepward asks for: data.stepward.requirement. It speaks of what is required, never of what the caller
#   brought to meet it; proving is Stepward's own work. The operation comes from the route table in data.yaml.
package stepward

# No answer is a refusal. It names no operation on purpose: a policy that gives it to a route fails the load probe, which
# names the route, instead of refusing that route's users one by one.
default requirement := {"deny": {"code": "undecided", "message": "The policy has no rule for this operation."}}

requirement := object.union(proof, {
	"operation": operation_name,
	"session": needs_session,
	"device": device,
	"minimum_api_version": environment.minimum_api_version,
	"minimum_sdk": object.get(environment, "minimum_sdk", {}),
	"release_on": object.get(operation, "release_on", []),
})

# METADATA
# description: The name under which the request is judged and counted.
operation_name := input.operation if input.operation != "credential.verify"

operation_name := "stepup.verify" if {
	input.operation == "credential.verify"
	verifies_for_step_up
}

operation_name := "credential.link" if {
	input.operation == "credential.verify"
	not verifies_for_step_up
}

# With requestedScopes the double-role endpoints mint an elevated token instead of linking (dynamic.md d1, d5). Anything but
# a list of names is no request for scopes: a backend that overlooks "requestedScopes": "x" would link.
verifies_for_step_up if {
	wanted := input.request.body.requestedScopes
	is_array(wanted)
	count(wanted) > 0
	every scope in wanted { is_scope(scope) }
}

is_scope(scope) if {
	is_string(scope)
	not contains(scope, " ")
	scope != ""
}

operation := data.stepward.operations[operation_name]

# Without a word from the data an operation is for people who are signed in.
needs_session := object.get(operation, "session", true)

# METADATA
# title: Devices
# description: |
#   A sign-in that is not finished lacks user:basic and is refused wherever a session is needed, unless the data opens the
#   operation to it: device: any to every such sign-in, form: true to one whose only debt is the user data form.
default device := "any"

device := object.get(operation, "device", "registered") if {
	needs_session
	not fills_in_form
}

fills_in_form if {
	operation.form
	is_string(input.session.scope) # another type would be an error of split, and a 503
	granted := split(input.session.scope, " ")
	"userDataForm" in granted
	not "device:register" in granted
	not "requiresAdditionalAuth" in granted
}
