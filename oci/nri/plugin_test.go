package nri

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"lensfs/oci"

	"github.com/containerd/nri/pkg/api"
)

// plug is a plugin of which the tests say what it knows, and what it logged.
func plug(serving bool) (*answers, *bytes.Buffer) {
	var log bytes.Buffer
	return &answers{Config: Config{
		Binds:   []oci.Bind{{Source: "/run/lensfs/self/proc/meminfo", Target: "/proc/meminfo"}, {Source: "/run/lensfs/self/proc/stat", Target: "/proc/stat"}},
		Default: true,
		Serving: func() bool { return serving },
		Log:     slog.New(slog.NewTextHandler(&log, nil)),
	}}, &log
}

// question gives what is added to a container, nil for nothing.
func question(t *testing.T, a *answers, pod *api.PodSandbox, c *api.Container) *api.ContainerAdjustment {
	t.Helper()
	adjust, updates, err := a.CreateContainer(context.Background(), pod, c)
	if err != nil || updates != nil {
		t.Fatalf("%v, %v: an error stops the container", updates, err)
	}
	return adjust
}

func TestWhoGetsViews(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		name      string
		byDefault bool
		pod, own  m
		want      bool
	}{
		{"nothing said", true, nil, nil, true},
		{"nothing said", false, nil, nil, false},
		{"the pod", true, m{Annotation: "off"}, nil, false},
		{"the pod", false, m{Annotation: "on"}, nil, true},
		{"the pod, the other way", false, m{Annotation + "/pod": "on"}, nil, true},
		{"one container of the pod", true, m{Annotation: "off", Annotation + "/container.web": "on"}, nil, true},
		{"another container of the pod", true, m{Annotation + "/container.db": "off"}, nil, true},
		{"the container itself", true, m{Annotation: "on"}, m{Annotation: "off"}, false},
		{"neither on nor off", true, m{Annotation: "yes"}, nil, true},
		{"neither on nor off", false, m{Annotation: "yes"}, nil, false},
	} {
		a, log := plug(true)
		a.Default = c.byDefault
		adjust := question(t, a, &api.PodSandbox{Name: "p", Namespace: "n", Annotations: c.pod}, &api.Container{Name: "web", Annotations: c.own})
		if (adjust != nil) != c.want {
			t.Errorf("%s, default %v: %v", c.name, c.byDefault, adjust)
		}
		if !strings.Contains(log.String(), "container=n/p/web") {
			t.Errorf("%s: the log has %s", c.name, log)
		}
	}
}

func TestWhatTheyGet(t *testing.T) {
	a, _ := plug(true)
	own := &api.Container{Mounts: []*api.Mount{{Source: "/dev/null", Destination: "/proc/stat"}}}
	adjust := question(t, a, nil, own)
	if len(adjust.Mounts) != 1 || adjust.Mounts[0].Destination != "/proc/meminfo" || strings.Join(adjust.Mounts[0].Options, ",") != "bind,ro,nosuid,nodev" {
		t.Errorf("beside a mount of its own on /proc/stat it gets %v", adjust.Mounts)
	}

	a, log := plug(false)
	if adjust := question(t, a, nil, &api.Container{}); adjust != nil || !strings.Contains(log.String(), "no daemon answers") {
		t.Errorf("nobody serves: %v, %s", adjust, log)
	}
	a.Hook = []string{"/usr/bin/lensfs", "lensfs", "hook", "oci"}
	adjust = question(t, a, nil, &api.Container{})
	if hooks := adjust.GetHooks().GetCreateContainer(); len(hooks) != 1 || hooks[0].Path != "/usr/bin/lensfs" || len(hooks[0].Args) != 3 || adjust.Mounts != nil {
		t.Errorf("with a hook: %v", adjust)
	}

	a.Hook, a.Serving = nil, nil // a bug
	if adjust := question(t, a, nil, &api.Container{}); adjust != nil || !strings.Contains(log.String(), "a bug") {
		t.Errorf("a panic is answered with %v, and the log has %s", adjust, log)
	}
}

func TestSynchronize(t *testing.T) {
	a, log := plug(true)
	pods := []*api.PodSandbox{{Id: "1", Name: "p", Namespace: "n"}, {Id: "2", Name: "q", Namespace: "n", Annotations: map[string]string{Annotation: "off"}}}
	running := api.ContainerState_CONTAINER_RUNNING
	attached := make(chan int, 9)
	a.Attach = func(pid int) { attached <- pid }
	_, err := a.Synchronize(context.Background(), pods, []*api.Container{
		{Name: "without", PodSandboxId: "1", State: running, Pid: 4711},
		{Name: "ended", PodSandboxId: "1", State: api.ContainerState_CONTAINER_STOPPED, Pid: 4712},
		{Name: "unwanted", PodSandboxId: "2", State: running, Pid: 4713},
		{Name: "with", PodSandboxId: "1", State: running, Mounts: []*api.Mount{{Source: "/run/lensfs/self/proc/stat"}}},
		{Name: "hooked", PodSandboxId: "1", State: running, Hooks: &api.Hooks{CreateContainer: []*api.Hook{{Args: oci.HookArgs("/run/lensfs")}}}},
		{Name: "no pod", PodSandboxId: "3", State: running, Pid: 4714},
	})
	if err != nil {
		t.Fatal(err)
	}
	if sum := <-attached + <-attached; sum != 4711+4714 || len(attached) != 0 {
		t.Errorf("attached: %d, and %d more", sum, len(attached))
	}
	if !strings.Contains(log.String(), `msg=connected containers=6 "with views"=2 without=2`) || !strings.Contains(log.String(), "container=n/p/without pid=4711") {
		t.Errorf("the log has %s", log)
	}
}
