package dash

import (
	"context"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// model is what the dashboard shows. Bubbletea calls it from one goroutine.
type model struct {
	cfg  Config
	ctx  context.Context // of Run
	list []session.Status
	past map[string]*history // by session
	err  error               // of the last Poll, nil if it worked
	over error               // why there is nothing more to show

	asked         bool // an answer has come
	paused        bool
	chosen        int  // index in list
	detail, help  bool // what is shown instead of the list
	top           int  // first line of the details that is shown
	width, height int
	now           time.Time // of the last answer
}

// The messages.
type (
	answer struct {
		list []session.Status
		err  error
		at   time.Time
	}
	again struct{}
)

func newModel(ctx context.Context, cfg Config) *model {
	return &model{cfg: cfg, ctx: ctx, past: map[string]*history{}, width: 80, height: 24}
}

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return m.ask }

// ask is a command: it asks for the sessions.
func (m *model) ask() tea.Msg {
	list, err := m.cfg.Poll(m.ctx)
	return answer{list, err, time.Now()}
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	case again:
		return m, m.ask
	case answer:
		if m.cfg.Over(msg.err) {
			m.over = msg.err
			return m, tea.Quit
		}
		m.take(msg)
		return m, tea.Tick(Pause, func(time.Time) tea.Msg { return again{} })
	}
	return m, nil
}

// take remembers an answer. A picture that is paused stays as it is.
func (m *model) take(a answer) {
	m.asked = true
	if m.err = a.err; a.err != nil || m.paused {
		return
	}
	name := m.name()
	m.list, m.now = a.list, a.at
	for _, st := range a.list {
		h := m.past[st.Session]
		if h == nil || !h.since.Equal(st.Since) { // another one of that name
			h = &history{since: st.Since}
			m.past[st.Session] = h
		}
		h.add(st, a.at)
	}
	for known := range m.past {
		if !slices.ContainsFunc(m.list, func(st session.Status) bool { return st.Session == known }) {
			delete(m.past, known)
		}
	}
	// The choice stays with its session.
	if i := slices.IndexFunc(m.list, func(st session.Status) bool { return st.Session == name }); i >= 0 {
		m.chosen = i
	} else {
		m.detail = false
	}
	m.chosen = max(min(m.chosen, len(m.list)-1), 0)
}

// name is that of the chosen session, "" if there is none.
func (m *model) name() string {
	if m.chosen < len(m.list) {
		return m.list[m.chosen].Session
	}
	return ""
}

// key does what a key says.
func (m *model) key(key string) tea.Cmd {
	switch key {
	case "ctrl+c", "q":
		return tea.Quit
	case "?", "h":
		m.help = !m.help
		return nil
	case "p", "space":
		m.paused = !m.paused
		return nil
	}
	switch {
	case m.help:
		m.help = false // any key
	case m.detail:
		m.keyInDetail(key)
	default:
		m.keyInList(key)
	}
	return nil
}

func (m *model) keyInList(key string) {
	switch key {
	case "up", "k":
		m.chosen = max(m.chosen-1, 0)
	case "down", "j":
		m.chosen = max(min(m.chosen+1, len(m.list)-1), 0)
	case "home", "g":
		m.chosen = 0
	case "end", "G":
		m.chosen = max(len(m.list)-1, 0)
	case "enter", "right", "l", "d":
		m.detail, m.top = m.name() != "", 0
	}
}

func (m *model) keyInDetail(key string) {
	switch key {
	case "up", "k":
		m.top = max(m.top-1, 0)
	case "down", "j":
		m.top++ // the view bounds it
	case "pgup":
		m.top = max(m.top-m.height/2, 0)
	case "pgdown":
		m.top += m.height / 2
	case "esc", "left", "backspace", "enter", "d":
		m.detail = false
	case "tab", "n":
		if len(m.list) > 0 {
			m.chosen, m.top = (m.chosen+1)%len(m.list), 0
		}
	}
}
