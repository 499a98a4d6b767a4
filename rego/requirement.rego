# METADATA
# title: What a request must bring
# description: |
#   The one rule that Stepward asks for: data.stepward.requirement. It speaks of what is required, never of what the caller
#   brought to meet it; proving is Stepward's own work. The operation comes from the route table in data.yaml.
package stepward

# No answer is a refusal.
default requirement := {
	"operation": "undecided",
	"session": true,
	"deny": {"code": "undecided", "message": "The policy has no rule for this operation."},
}

requirement := object.union(common, proof) if operation

# METADATA
# description: The name under which the request is judged and counted.
default operation_name := ""

operation_name := input.operation if input.operation != "credential.verify"

operation_name := "stepup.verify" if {
	input.operation == "credential.verify"
	verifies_for_step_up
}

operation_name := "credential.link" if {
	input.operation == "credential.verify"
	not verifies_for_step_up
}

# With requestedScopes the double-role endpoints mint an elevated token instead of linking (dynamic.md d1, d5).
verifies_for_step_up if count(input.request.body.requestedScopes) > 0

operation := data.stepward.operations[operation_name]

default common := {}

common := object.union(
	{
		"operation": operation_name,
		"session": needs_session,
		"device": device,
		"minimum_api_version": environment.minimum_api_version,
		"minimum_sdk": object.get(environment, "minimum_sdk", {}),
	},
	named_releases,
) if operation

default needs_session := true

needs_session := operation.session

default device := "any"

device := object.get(operation, "device", "registered") if needs_session

named_releases := {"release_on": operation.release_on} if {
	operation.release_on
} else := {}
