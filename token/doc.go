// Package token verifies the compact JWTs (RFC 7519, RFC 7515) that clients bring, against their issuers' keys.
//
// A token passes a strict reading of our own before golang-jwt sees it, because golang-jwt accepts more than one spelling
// of the same token and more than one reading of the same text: unknown crit, duplicate members, case-folded members,
// numbers out of range (RFC 8725 section 2 and 3). golang-jwt then checks the signature and nothing else.
//
// Session, elevated and MFA tokens may share issuer, key and typ. They are told apart by their scopes and by the claim
// singleUse, and are never interchangeable.
//
// Sender-constrained tokens (DPoP, RFC 9449; mutual TLS, RFC 8705) are not verified. Their seam is Claims.Members: the
// claim cnf is handed on as it was signed.
package token
