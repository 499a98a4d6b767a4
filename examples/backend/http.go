package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const maxBody = 1 << 20

type object = map[string]any

// handlerFunc answers with a value for the body, nil for 204, or an error: a *failure is told to the client, any other is a 500.
type handlerFunc func(r *http.Request) (any, error)

// userFunc is a handlerFunc that acts for a user.
type userFunc func(r *http.Request, user string) (any, error)

// accepted is an answer with status 202: nothing has been done yet.
type accepted struct{ body any }

// failure is an error that the client is told, in the form that Dynamic's SDK reads.
type failure struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"error"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Message }

var errUnauthorized = &failure{http.StatusUnauthorized, "unauthorized", "Unauthorized"}

func notFound(what string) error {
	return &failure{http.StatusNotFound, "not_found", what + " not found"}
}

func unprocessable(code, message string) error {
	return &failure{http.StatusUnprocessableEntity, code, message}
}

// asUser takes the user from the gate's word for it. Without a gate there is no user.
func asUser(h userFunc) handlerFunc {
	return func(r *http.Request) (any, error) {
		user := r.Header.Get(headerSubject)
		if user == "" {
			return nil, errUnauthorized
		}
		return h(r, user)
	}
}

func fixed(body any) handlerFunc {
	return func(*http.Request) (any, error) { return body, nil }
}

// counted records every request before anything else happens to it, so that no failure can hide one.
func (b *Backend) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.cfg.Log.InfoContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path,
			"user", r.Header.Get(headerSubject), "decision", r.Header.Get(headerDecision))
		if err := b.count(r.Method, r.URL.Path); err != nil {
			b.answer(w, r, nil, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (b *Backend) serve(h handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		body, err := h(r)
		b.answer(w, r, body, err)
	})
}

// stream serves server-sent events to clients that ask for them, as the calls that need several parties do at Dynamic: one,
// named first, when they have a room to meet in, and one with the result when they are done. With an idempotency key the answer is one piece.
func (b *Backend) stream(first string, h handlerFunc) http.Handler {
	plain := b.serve(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") || r.Header.Get("X-Idempotency-Key") != "" {
			plain.ServeHTTP(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		body, err := h(r)
		if told := (*failure)(nil); errors.As(err, &told) {
			b.answer(w, r, nil, err)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		if err != nil {
			b.cfg.Log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
			b.event(w, r, "error", object{"error": "Internal error"})
			return
		}
		b.event(w, r, first, room(body))
		select {
		case <-r.Context().Done():
		case <-time.After(b.cfg.Pause):
			b.event(w, r, "ceremony_complete", body)
		}
	})
}

// room is the part of an answer that is known before the parties have worked together.
func room(body any) object {
	whole, _ := body.(object)
	part := object{}
	for _, name := range []string{"roomId", "serverKeygenIds"} {
		if value, ok := whole[name]; ok {
			part[name] = value
		}
	}
	return part
}

// event sends one event at once: a client waits for the first before it takes its own part in the ceremony.
func (b *Backend) event(w http.ResponseWriter, r *http.Request, name string, data any) {
	raw, err := json.Marshal(data)
	if err == nil {
		_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, raw)
	}
	if err = errors.Join(err, http.NewResponseController(w).Flush()); err != nil {
		b.cfg.Log.WarnContext(r.Context(), "send event", "path", r.URL.Path, "error", err)
	}
}

func (b *Backend) answer(w http.ResponseWriter, r *http.Request, body any, err error) {
	status := http.StatusOK
	var told *failure
	switch wait, waiting := body.(accepted); {
	case errors.As(err, &told):
		status, body = told.status, told
	case err != nil:
		b.cfg.Log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
		status, body = http.StatusInternalServerError, &failure{Code: "internal", Message: "Internal error"}
	case waiting:
		status, body = http.StatusAccepted, wait.body
	case body == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		b.cfg.Log.WarnContext(r.Context(), "send answer", "path", r.URL.Path, "error", err)
	}
}

// decode reads a JSON body. Unknown members are let pass, because SDKs send more than is read here.
func decode(r *http.Request, into any) error {
	err := json.NewDecoder(r.Body).Decode(into)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &failure{http.StatusRequestEntityTooLarge, "body_too_large", "Request body too large"}
	case err != nil:
		return &failure{http.StatusBadRequest, "bad_request", "Request body is not what was expected"}
	}
	return nil
}
