package issuer

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// EthereumWallet is the client's side of wallet signatures: what a browser extension keeps, and signs with.
type EthereumWallet struct {
	// Address is in lower case, without a checksum.
	Address string

	private *secp256k1.PrivateKey
}

// NewEthereumWallet makes a wallet with a key of its own.
func NewEthereumWallet() (*EthereumWallet, error) {
	private, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("generate wallet key: %w", err)
	}
	return newEthereumWallet(private), nil
}

func newEthereumWallet(private *secp256k1.PrivateKey) *EthereumWallet {
	sum := keccak(string(private.PubKey().SerializeUncompressed()[1:]))
	return &EthereumWallet{Address: "0x" + hex.EncodeToString(sum[12:]), private: private}
}

// Message is the EIP-4361 message by which the wallet signs in to a site, with a nonce of GET /nonce.
func (w *EthereumWallet) Message(domain, uri, environment, nonce string, issued time.Time) string {
	return fmt.Sprintf("%s wants you to sign in with your Ethereum account:\n%s\n\n\nURI: %s\nVersion: 1\nChain ID: 1\nNonce: %s\n"+
		"Issued At: %s\nRequest ID: %s", domain, w.Address, uri, nonce, issued.UTC().Format(time.RFC3339), environment)
}

// Sign signs a text as EIP-191 wants personal messages signed: 65 bytes in hex.
func (w *EthereumWallet) Sign(message string) string {
	compact := ecdsa.SignCompact(w.private, personal(message), false)
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}

// Proof is the body for POST /verify, /wallets/verify and /verify/link.
func (w *EthereumWallet) Proof(message string, scopes ...string) map[string]any {
	return object{
		"messageToSign": message, "signedMessage": w.Sign(message), "publicWalletAddress": w.Address, "chain": "EVM", "network": "1",
		"walletName": "metamask", "walletProvider": "browserExtension", "requestedScopes": scopes,
	}
}
