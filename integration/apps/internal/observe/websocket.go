package observe

import (
	"net/http"

	"github.com/gorilla/websocket"
)

// converse first says what was seen of the handshake and then echoes every message.
func converse(w http.ResponseWriter, r *http.Request, seen Seen) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }} // there is nothing to protect
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	if err := conn.WriteJSON(seen); err != nil {
		return
	}
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return // the client closed
		}
		if err := conn.WriteMessage(kind, message); err != nil {
			return
		}
	}
}
