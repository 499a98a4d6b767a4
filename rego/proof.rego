package stepward

# METADATA
# title: Step-up and action-based MFA
# description: |
#   What must be proven beyond the session: scopes on an elevated access token from 2026_04_01 on; below it, for the configured
#   actions, an action-based MFA token, in whose place such an elevated token is accepted (dynamic.md h); or nothing. There is no
#   default: a demand whose scopes, use or lifetime the data forgot has no answer, which refuses, rather than the answer "nothing".
proof := elevated if step_up

proof := object.union(in_its_place, {
	"mfa_action": operation.mfa_action,
	"mfa_required": object.get(environment, "mfa_required", false),
	"methods": data.stepward.methods,
}) if {
	not step_up
	action_configured
}

proof := {"deny": operation.deny}

proof := {} if {
	not step_up
	not action_configured
	not operation.deny
}

step_up if {
	step_up_in_force
	asked_for
}

# Whether the operation is asked for at a version that has step-up. "always" cannot be switched off.
asked_for if operation.always

asked_for if environment.step_up[operation_name]

asked_for if {
	operation.by_default
	not environment.step_up[operation_name] == false
}

# What was asked for below the version is asked for from it on: the configured actions carry over.
asked_for if {
	operation.scopes
	action_configured
}

action_configured if operation.mfa_action in environment.mfa_actions

elevated := {
	"scopes": operation.scopes,
	"token": object.get(environment, ["token", operation_name], operation.token),
	"max_age": object.get(environment, ["max_age", operation_name], operation.max_age),
	"methods": data.stepward.methods,
}

in_its_place := elevated if operation.scopes

in_its_place := {} if not operation.scopes
