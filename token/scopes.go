package token

// DefaultSessionScopes returns the words that only Dynamic's session tokens carry. The slice is the caller's.
func DefaultSessionScopes() []string {
	return []string{"user:basic", "requiresAdditionalAuth", "userDataForm", "waasBackupToken", "device:register"}
}

// DefaultElevatedScopes returns the scopes of Dynamic's elevated access tokens as its API client 0.40.0 lists them. The
// set is open: new ones keep arriving, and an operator adds them in the configuration. The slice is the caller's.
func DefaultElevatedScopes() []string {
	return []string{
		"credential:link", "credential:unlink", "credential:update",
		"user:delete", "user:update",
		"wallet:delegate", "wallet:delete", "wallet:export", "wallet:refresh", "wallet:reshare", "wallet:restore", "wallet:sign",
		"business_account:governance:update", "business_account:link_wallet",
		"business_account:member:add", "business_account:member:remove", "business_account:member:role:update",
		"business_account:proposal:approve", "business_account:proposal:veto",
		"business_account:role:define", "business_account:role:delete",
		"business_account:signer:add", "business_account:signer:remove", "business_account:transfer_ownership",
		"business_account:wallet:create", "business_account:wallet:remove",
		"console:admin_action:review", "console:approval_workflow:update", "console:member:invite", "console:mfa:reset",
		"console:project:delete", "console:settings:update", "console:sso:update", "console:user:delete",
	}
}
