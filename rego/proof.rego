package stepward

# METADATA
# title: Step-up and action-based MFA
# description: |
#   What must be proven beyond the session: scopes on an elevated access token from 2026_04_01 on, an action-based MFA token
#   for the configured actions below it, or nothing. There is no default: a demand whose scopes, use or lifetime the data
#   forgot has no answer, which refuses, rather than the answer "nothing".
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
	action_configured
}

proof := {} if {
	step_up_in_force
	not step_up_demanded
}

proof := {} if {
	not step_up_in_force
	not action_configured
}

step_up_demanded if operation.always

# "always" cannot be switched off; the others can be switched on.
step_up_demanded if environment.step_up[operation_name]

action_configured if operation.mfa_action in environment.mfa_actions
