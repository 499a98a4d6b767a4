# METADATA
# title: Operations
# description: >-
#   Which operation a route is, and what the data says of it. Two kinds of requests share the verify routes: with
#   requestedScopes in the body it is a verification that issues an elevated token, which cannot need one itself; anything
#   else there links a credential.
package stepward

default prefix := ""

# Routes are written without the mount; input.route has it.
prefix := data.stepward.mount

named := data.stepward.routes[replace(input.route, prefix, "")].operation

operation := named if named != "credential.verify"

operation := "credential.link" if {
	named == "credential.verify"
	not asks_for_scopes
}

operation := "step_up.verify" if {
	named == "credential.verify"
	asks_for_scopes
}

# Only a list that names a scope asks for one: null, an empty list or a text leave the request what it was.
asks_for_scopes if {
	wanted := input.request.body.requestedScopes
	is_array(wanted)
	count(wanted) > 0
	every scope in wanted { is_string(scope) }
	every scope in wanted { scope != "" }
}

members := {
	"always", "device", "form", "max_age", "methods", "mfa_action", "release_on", "scopes", "session", "token",
}

# A member that nobody reads may be a misspelt requirement, so an operation with one has no facts, and no answer.
facts := found if {
	found := data.stepward.operations[operation]
	object.remove(found, members) == {}
}

# Without a word from the data an operation is for people who are signed in.
signed_in := object.get(facts, "session", true)
