# METADATA
# title: Action-based MFA
# description: Below 2026_04_01 the actions that the environment names need the old, unscoped MFA token.
package stepward

default action_mfa := {}

action_mfa := {"mfa_action": facts.mfa_action} if {
	below_step_up
	facts.mfa_action in settings.mfa_actions
}
