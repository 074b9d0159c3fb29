package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
)

// Image is an image that the engine has.
type Image struct {
	ID       string `json:"Id"`
	RepoTags []string
}

// HasImage reports whether the engine has an image of that name.
func (c *Client) HasImage(ctx context.Context, ref string) (bool, error) {
	err := c.do(ctx, http.MethodGet, "/images/"+ref+"/json", nil, nil, nil)
	if IsRefused(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// LoadImage gives the engine the images of an archive, as `docker load` does.
func (c *Client) LoadImage(ctx context.Context, archive io.Reader) error {
	resp, err := c.send(ctx, http.MethodPost, "/images/load", url.Values{"quiet": {"1"}}, "application/x-tar", archive)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// The head says 200 before the archive has been looked at.
	lines := bufio.NewScanner(io.LimitReader(resp.Body, maxAnswer))
	for lines.Scan() {
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(lines.Bytes(), &said) == nil && said.Error != "" {
			return errors.New(said.Error)
		}
	}
	return lines.Err()
}

// Images lists the images with a label, NAME or NAME=VALUE.
func (c *Client) Images(ctx context.Context, label string) ([]Image, error) {
	var out []Image
	return out, c.do(ctx, http.MethodGet, "/images/json", labelled(label), nil, &out)
}

// RemoveImage removes an image that no container uses.
func (c *Client) RemoveImage(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/images/"+id, nil, nil, nil)
}

// labelled is the query that selects by a label.
func labelled(label string) url.Values {
	text, err := json.Marshal(map[string][]string{"label": {label}})
	if err != nil {
		panic(err) // strings can be encoded: unreachable
	}
	return url.Values{"filters": {string(text)}}
}
