package issuer

import (
	"net/http"
	"strings"
)

// POST /smsVerifications/create {phoneCountryCode, phoneNumber, isoCountryCode}
func (i *Issuer) createSMSVerification(r *http.Request) (any, error) {
	var body struct {
		ISOCountryCode   string `json:"isoCountryCode"`
		PhoneCountryCode string `json:"phoneCountryCode"`
		PhoneNumber      string `json:"phoneNumber"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	country, number := digits(body.PhoneCountryCode), digits(body.PhoneNumber)
	if country == "" || len(number) < 4 || len(country)+len(number) > 15 { // 15 is E.164's limit
		return nil, unprocessable("invalid_phone", "Invalid phone number")
	}
	id, err := i.sendCode(credential{
		Format: formatPhone, PublicIdentifier: "+" + country + number,
		PhoneNumber: number, PhoneCountryCode: country, ISOCountryCode: body.ISOCountryCode,
	})
	return map[string]string{
		"verificationUUID": id, "phoneNumber": number, "phoneCountryCode": country, "isoCountryCode": body.ISOCountryCode,
	}, err
}

// digits leaves out what people write between digits. One who writes anything else has no number.
func digits(s string) string {
	s = strings.NewReplacer(" ", "", "-", "", "(", "", ")", "", ".", "", "+", "").Replace(s)
	if strings.Trim(s, "0123456789") != "" {
		return ""
	}
	return s
}
