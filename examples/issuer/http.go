package issuer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

const maxBody = 64 << 10

// handlerFunc answers with a value for the body, nil for 204, or an error: a *failure is told to the client, any other is a 500.
type handlerFunc func(r *http.Request) (any, error)

// sessionFunc is a handlerFunc for which the request must bring a valid session.
type sessionFunc func(r *http.Request, s session) (any, error)

// failure is an error that the client is told, in the form that Dynamic's SDK reads.
type failure struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"error"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Message }

func fail(status int, code, message string) error {
	return &failure{status: status, Code: code, Message: message}
}

func unprocessable(code, message string) error {
	return fail(http.StatusUnprocessableEntity, code, message)
}

var errUnauthorized = fail(http.StatusUnauthorized, "unauthorized", "Unauthorized")

func (i *Issuer) serve(h handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		body, err := h(r)
		if set, ok := body.(withCookies); ok && err == nil {
			for _, c := range set.setCookies() {
				http.SetCookie(w, c)
			}
		}
		var told *failure
		switch {
		case errors.As(err, &told):
			i.write(w, told.status, told)
		case err != nil:
			i.cfg.Log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
			i.write(w, http.StatusInternalServerError, &failure{Code: "internal", Message: "Internal error"})
		case redirected(w, r, body):
		case isEmpty(body):
			w.WriteHeader(http.StatusNoContent)
		default:
			i.write(w, http.StatusOK, body)
		}
	})
}

func isEmpty(body any) bool {
	_, over := body.(farewell)
	return over || body == nil
}

// redirect is an answer that leads a browser elsewhere.
type redirect string

func redirected(w http.ResponseWriter, r *http.Request, body any) bool {
	to, ok := body.(redirect)
	if ok {
		http.Redirect(w, r, string(to), http.StatusSeeOther)
	}
	return ok
}

func (i *Issuer) write(w http.ResponseWriter, status int, body any) {
	raw, ok := body.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			i.cfg.Log.Error("encode answer", "error", err)
			status, raw = http.StatusInternalServerError, []byte(`{"error":"Internal error","code":"internal"}`)
		}
		// Only the keys are for everybody; all else carries tokens or says something about a person.
		w.Header().Set("Cache-Control", "no-store")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the client has gone: nobody is left to tell
}

// decode reads a JSON body. Unknown members are let pass, because SDKs send more than is read here.
func decode(r *http.Request, into any) error {
	err := json.NewDecoder(r.Body).Decode(into)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fail(http.StatusRequestEntityTooLarge, "body_too_large", "Request body too large")
	case errors.Is(err, io.EOF):
		return fail(http.StatusBadRequest, "bad_request", "Request body missing")
	case err != nil:
		return fail(http.StatusBadRequest, "bad_request", fmt.Sprintf("Request body: %v", err))
	}
	return nil
}
