package stepward

# METADATA
# title: Environments
# description: What the request's environment demands; members it does not set come from `default`.
environment := object.union(
	data.stepward.environments["default"],
	object.get(data.stepward.environments, input.environment.id, {}),
)

# METADATA
# description: From this version on step-up replaces action-based MFA.
step_up_in_force if environment.minimum_api_version >= "2026_04_01"
