package issuer

import "github.com/decred/dcrd/dcrec/secp256k1/v4"

// WalletOf makes a wallet whose key is a small number.
func WalletOf(key byte) *EthereumWallet {
	return newEthereumWallet(secp256k1.PrivKeyFromBytes([]byte{31: key}))
}
