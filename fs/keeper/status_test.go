package keeper

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Keys are never renamed: programs look for them.
func TestReportKeys(t *testing.T) {
	text, err := json.Marshal(Report{Worker: WorkerReport{LastEnd: "x"}, Mounts: []MountReport{{}}, Serves: json.RawMessage("{}")})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	got["mount"] = got["mounts"].([]any)[0]
	for name, want := range map[string]string{
		"keeper": "pid since version",
		"worker": "cgroups last_end pid restarts since version",
		"mount":  "device dir kind protocol_minor",
		"kernel": "fuse_noflush fuse_resend release",
		"serves": "",
	} {
		part, ok := got[name].(map[string]any)
		if !ok {
			t.Errorf("there is no %s", name)
			continue
		}
		if keys := strings.Join(slices.Sorted(maps.Keys(part)), " "); keys != want {
			t.Errorf("%s has the keys %q, want %q", name, keys, want)
		}
	}
	if len(got) != 6 {
		t.Errorf("%d keys: %s", len(got)-1, text)
	}
}
