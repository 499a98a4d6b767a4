package stepward

# METADATA
# title: Where sign-ins and emailed links lead back to
# description: |
#   A link that the backend mails leads to the origin that asked for it, a social sign-in to the address in its request. In an
#   environment that lists redirect_origins both must be on the list, wherever they can be seen: the header Origin, redirectUrl
#   of POST …/initAuth, redirect_uri of GET …/authorizeHtml, and the deep link that native apps append to state. A request that
#   names none is the backend's to judge.
default redirect_denial := {}

redirect_denial := {"deny": {"code": "redirect_not_allowed", "message": "This origin or redirect target is not allowed."}} if {
	operation.redirects
	environment.redirect_origins
	some target in redirect_targets
	not leads_home(target)
}

redirect_targets contains origin if some origin in input.request.headers.origin

redirect_targets contains uri if some uri in input.request.query.redirect_uri

redirect_targets contains url if {
	url := input.request.body.redirectUrl
	url != null
}

redirect_targets contains link if {
	some state in redirect_states
	parts := split(state, "_client-redirect:")
	some link in array.slice(parts, 1, count(parts))
}

# A state that is no text is read by nobody in the same way.
redirect_targets contains null if {
	state := input.request.body.state
	state != null
	not is_string(state)
}

redirect_states contains state if some state in input.request.query.state

redirect_states contains state if {
	state := input.request.body.state
	is_string(state)
}

# METADATA
# description: |
#   A target is compared as text with what browsers make of a URL: scheme and host in lower case, no default port. What follows
#   the origin must end its host and port, so that neither "https://app.example@evil" nor "https://app.example.evil" is one.
leads_home(target) if {
	is_string(target)
	regex.match(`^[!-\[\]-~]+$`, target) # printable ASCII: no blanks, which parsers drop, and no "\", which some take for "/"
	some origin in environment.redirect_origins
	begins_with(target, origin)
}

begins_with(target, origin) if target == origin

# "myapp://": all of an app's own scheme.
begins_with(target, origin) if {
	endswith(origin, "://")
	startswith(target, origin)
}

begins_with(target, origin) if {
	not endswith(origin, "://")
	startswith(target, origin)
	substring(target, count(origin), 1) in {"/", "?", "#"}
}
