package stepward

# METADATA
# title: Step-up and action-based MFA
# description: |
#   What must be proven beyond the session: scopes on an elevated access token from 2026_04_01 on, an action-based MFA token
#   for the configured actions below it, or nothing.
default proof := {}

proof := {
	"scopes": operation.scopes,
	"token": object.get(environment, ["token", operation_name], operation.token),
	"max_age": object.get(environment, ["max_age", operation_name], operation.max_age),
	"methods": data.stepward.methods,
} if {
	step_up_in_force
	step_up_demanded
}

proof := {
	"mfa_action": operation.mfa_action,
	"methods": data.stepward.methods,
} if {
	not step_up_in_force
	operation.mfa_action in environment.mfa_actions
}

default step_up_demanded := false

step_up_demanded if operation.always

# "always" cannot be switched off; the others can be switched on.
step_up_demanded if environment.step_up[operation_name] == true
