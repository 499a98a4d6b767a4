package token

// ReadSet is parseJWKS with its defaults, for the fuzzer: the kids of the usable keys and how many others there are.
func ReadSet(text []byte) (kids []string, ignored int, err error) {
	set, err := parseJWKS(text, 64, Algorithms())
	if err != nil {
		return nil, 0, err
	}
	for kid := range set.keys {
		kids = append(kids, kid)
	}
	return kids, set.ignored, nil
}
