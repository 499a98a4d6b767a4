package stepward

# METADATA
# title: Environments
# description: What the request's environment demands; members it does not set come from `default`.
environment := object.union(
	data.stepward.environments["default"],
	object.get(data.stepward.environments, input.environment.id, {}),
)

# METADATA
# description: |
#   From this version on step-up replaces action-based MFA. "2026-04-01" means the same and would sort before it.
step_up_in_force if has_step_up(environment.minimum_api_version)

has_step_up(version) if replace(version, "-", "_") >= "2026_04_01"
