# METADATA
# title: Devices
# description: >-
#   A session that is not finished (device, second factor or form outstanding) lacks user:basic and is refused wherever a
#   session is required. The data names the operations that must work before (device: any) and those that a session with
#   only the user data form outstanding needs to fill it in (form: true).
package stepward

default device_rule := {}

device_rule := {"device": facts.device}

device_rule := {"device": "any"} if {
	facts.form
	only_form_outstanding
}

only_form_outstanding if {
	granted := split(input.session.scope, " ")
	"userDataForm" in granted
	not "device:register" in granted
	not "requiresAdditionalAuth" in granted
}
