# METADATA
# title: What a request must bring
# description: |
#   The one rule that Stepward asks for: data.stepward.requirement. It speaks of what is required, never of what the caller
#   brought to meet it; proving is Stepward's own work. The operation comes from the route table in data.yaml.
package stepward

# No answer is a refusal. It names no operation on purpose: a policy that gives it to a route fails the load probe, which
# names the route, instead of refusing that route's users one by one.
default requirement := {"deny": {"code": "undecided", "message": "The policy has no rule for this operation."}}

requirement := object.union_n([proof, redirect_denial, clients, {
	"operation": operation_name,
	"session": needs_session,
	"device": device,
	"device_proof": device_proof,
	"recheck": object.get(operation, "recheck", false),
	"minimum_api_version": environment.minimum_api_version,
	"release_on": object.get(operation, "release_on", []),
}])

# METADATA
# description: The name under which the request is judged and counted. A route's own, unless the body decides.
operation_name := decided(roles) if roles := data.stepward.by_body[input.operation]

else := input.operation

decided(roles) := "stepup.refused" if {
	roles
	not may_ask
} else := roles.business_account if {
	names_business_account
} else := roles.requests_scopes if {
	requests_scopes
} else := roles.otherwise

# Dynamic creates the wallet of a business account on the same route as a user's own (dynamic.md d4).
names_business_account if {
	id := input.request.body.businessAccountId
	id != null
}

# With requestedScopes the double-role endpoints mint an elevated token instead of linking (dynamic.md d1, d5). Anything but
# a list of names is refused: a backend that overlooks "requestedScopes": "x" would link, another would mint.
requests_scopes if some _ in listed

# METADATA
# title: Scopes that a step-up may ask for
# description: |
#   Everything that the body asks for must be in the lists of requested_scopes. What cannot be read stands as null, which is in
#   no list; so does everything where the data has lost its lists.
may_ask if {
	every scope in wanted { requestable(scope) }
}

wanted contains scope if some scope in listed

wanted contains null if {
	given := input.request.body.requestedScopes
	given != null
	not listed
}

# No honest list is longer, and every member costs time.
listed := input.request.body.requestedScopes if {
	is_array(input.request.body.requestedScopes)
	count(input.request.body.requestedScopes) <= 64
}

# A sign-in that says so is given credential:link without naming it (dynamic.md b).
wanted contains "credential:link" if {
	flag := input.request.body.allowNewMFALinking
	not flag in {false, null}
}

# An assertion of the operator's own backend asks by its claim. Whoever mints proves it; here it is only read.
wanted contains scope if {
	some scope in asserted
	scope != ""
}

wanted contains null if {
	input.request.body.jwt
	not asserted
}

asserted := scopes if {
	is_string(input.request.body.jwt)
	[_, payload, _] := split(input.request.body.jwt, ".")
	regex.match(`^([\w-]{4})*([\w-]{2,3})?$`, payload) # other text would be an error of decode, and a 503
	text := base64url.decode(payload)
	json.is_valid(text)
	claims := json.unmarshal(text)
	is_string(claims.scope)
	scopes := split(claims.scope, " ")
	count(scopes) <= 64
}

requestable(scope) if {
	is_string(scope)
	regex.match(`^[!#-)+\--\[\]-~]+$`, scope) # scope-token of RFC 6749 section 3.3, without "*" and ","
	some allowed in askable.allow
	covers(allowed, scope)
	every refused in askable.refuse { not covers(lower(refused), lower(scope)) }
}

covers(name, scope) if name == scope

covers(name, scope) if {
	endswith(name, "*")
	startswith(scope, trim_suffix(name, "*"))
}

askable := object.union(data.stepward.requested_scopes, object.get(environment, "requested_scopes", {}))

operation := data.stepward.operations[operation_name]

# Without a word from the data an operation is for people who are signed in.
needs_session := object.get(operation, "session", true)

# METADATA
# title: Devices
# description: |
#   A sign-in that is not finished lacks user:basic and is refused wherever a session is needed, unless the data opens the
#   operation to it: device: any to every such sign-in, form: true to one whose only debt is the user data form.
default device := "any"

device := object.get(operation, "device", "registered") if {
	needs_session
	not fills_in_form
}

# METADATA
# title: Proof of the device's key
# description: |
#   Asked for on the operations that the environment lists, where the SDK sends one: not in cookie mode, in which a cookie is
#   all that a browser knows of its device.
default device_proof := false

device_proof if {
	operation_name in environment.device_proof
	not environment.device_cookie == true
}

fills_in_form if {
	operation.form
	is_string(input.session.scope) # another type would be an error of split, and a 503
	granted := split(input.session.scope, " ")
	"userDataForm" in granted
	not "device:register" in granted
	not "requiresAdditionalAuth" in granted
}
