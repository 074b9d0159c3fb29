package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// federated says which ServiceAccount may act as which application, as a federated
// credential does.
var federated = map[string]string{"00000000-0000-0000-0000-00000000c11d": "system:serviceaccount:shop:cloudy"}

// entraID is Microsoft Entra as far as a token is exchanged for another one.
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
type entraID struct{ cluster *cluster }

func (e *entraID) serve(w http.ResponseWriter, r *http.Request) {
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	base := "https://" + r.Host + "/" + tenant
	switch rest {
	case "v2.0/.well-known/openid-configuration":
		reply(w, http.StatusOK, map[string]any{"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token"})
	case "oauth2/v2.0/token":
		e.exchange(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (e *entraID) exchange(w http.ResponseWriter, r *http.Request) {
	client := r.FormValue("client_id")
	id, err := e.cluster.verify(r.Context(), r.FormValue("client_assertion"), "api://AzureADTokenExchange")
	switch {
	case r.FormValue("grant_type") != "client_credentials", r.FormValue("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
		reply(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
	case err != nil:
		reply(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": err.Error()})
	case federated[client] != id.subject:
		reply(w, http.StatusBadRequest, map[string]any{"error": "invalid_client", "error_description": fmt.Sprintf("no federated credential of %s matches %s", client, id.subject)})
	default:
		reply(w, http.StatusOK, map[string]any{"access_token": "token of application " + client, "expires_in": 3600, "ext_expires_in": 3600, "token_type": "Bearer"})
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
