package stepward

# METADATA
# title: What clients should know
# description: |
#   Which SDKs are too old, and which floor is coming. The environment's minimum_sdk is enforced unless sdk_minimums says otherwise:
#   whoever misspells it refuses too much, not too little. Advice belongs to step-up, so it is given where that is in force or
#   announced.
clients["minimum_sdk"] := environment.minimum_sdk if not lenient

lenient if environment.sdk_minimums in {"off", "advise"}

clients["advise_sdk"] := environment.minimum_sdk if {
	environment.sdk_minimums == "advise"
	step_up_in_force
}

clients["advise_sdk"] := environment.minimum_sdk if {
	environment.sdk_minimums == "advise"
	step_up_announced
}

# Said only of operations that need no step-up today and will at the announced version.
clients["announced"] := environment.announced if {
	not step_up_in_force
	step_up_announced
	asked_for
}

step_up_announced if has_step_up(environment.announced.minimum_api_version)
