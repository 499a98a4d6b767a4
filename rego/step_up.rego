# METADATA
# title: Step-up authentication
# description: >-
#   From 2026_04_01 on an operation needs an elevated access token if its data says always, or if the environment switches
#   it on. An environment can set its own lifetime and token use per operation; it can not switch off what is always needed.
package stepward

default step_up := {}

step_up := object.union(
	{"scopes": facts.scopes, "token": token_use, "max_age": lifetime, "methods": offered},
	object.filter(facts, ["release_on"]),
) if {
	elevated
}

elevated if {
	not below_step_up
	facts.always
}

elevated if {
	not below_step_up
	settings.step_up[operation]
}

token_use := object.get(settings, ["token", operation], facts.token)

lifetime := object.get(settings, ["ttl", operation], facts.max_age)

offered := object.get(facts, "methods", data.stepward.methods)
