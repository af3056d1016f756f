// Package nri is a plugin of the Node Resource Interface (NRI), by which containerd and CRI-O ask it about every container that they make.
//
// It fails open. A runtime that cannot reach it, or gets no answer in time, goes on without; it never answers with an error, which would stop a
// container; and it gives out nothing that may not work at that moment. It answers from memory and touches no mount while a runtime waits.
package nri

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"

	"lensfs/oci"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/plugin"
)

// Annotation says whether a container gets the views: "on" or "off". In Kubernetes, where only pods are annotated, Annotation/container.NAME is for one
// container of the pod: that is how NRI plugins do it.
const Annotation = "views.lensfs.dev"

// Config is what the plugin does.
type Config struct {
	Socket  string        // of the runtime's NRI
	Index   string        // two digits, its place among the plugins
	Binds   []oci.Bind    // what a container gets
	Hook    []string      // instead of Binds, a createContainer hook: the program, and its arguments with its own name first
	Default bool          // is for containers whose annotations say nothing
	Serving func() bool   // does a daemon answer? It has to know at once
	Attach  func(pid int) // gives the views to a container that already runs; nil: nobody does, they are counted
	Log     *slog.Logger
}

// answers is what the runtime asks. It is never more than one question at a time.
type answers struct {
	Config
	given, plain int // containers, since the runtime was connected
}

// Synchronize is told of what there is already when a runtime is connected.
func (a *answers) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	defer a.recovered()
	byID := map[string]*api.PodSandbox{}
	for _, p := range pods {
		byID[p.GetId()] = p
	}
	a.given, a.plain = 0, 0
	var with, without int
	for _, c := range containers {
		if c.GetState() != api.ContainerState_CONTAINER_RUNNING {
			continue
		}
		pod := byID[c.GetPodSandboxId()]
		if a.has(c) {
			with++
			continue
		}
		if !a.wanted(pod, c) {
			continue
		}
		without++
		a.Log.Info("runs without views", "container", nameOf(pod, c), "pid", c.GetPid())
		if a.Attach != nil {
			go a.Attach(int(c.GetPid())) // the runtime does not wait for it
		}
	}
	a.Log.Info("connected", "containers", len(containers), "with views", with, "without", without)
	return nil, nil
}

// CreateContainer says what is added to a container that is about to be made.
func (a *answers) CreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	defer a.recovered()
	adjust, why := a.adjust(pod, c)
	if adjust == nil {
		a.plain++
		a.Log.Info("no views", "container", nameOf(pod, c), "because", why, "given", a.given, "plain", a.plain)
		return nil, nil, nil
	}
	a.given++
	a.Log.Info("views", "container", nameOf(pod, c), "given", a.given, "plain", a.plain)
	return adjust, nil, nil
}

func (a *answers) adjust(pod *api.PodSandbox, c *api.Container) (adjust *api.ContainerAdjustment, why string) {
	if !a.wanted(pod, c) {
		return nil, "it is not to have them"
	}
	if a.Hook != nil { // which finds out for itself who serves
		adjust = &api.ContainerAdjustment{}
		adjust.AddHooks(&api.Hooks{CreateContainer: []*api.Hook{{Path: a.Hook[0], Args: a.Hook[1:]}}})
		return adjust, ""
	}
	if !a.Serving() {
		return nil, "no daemon answers" // the runtime could not make it
	}
	adjust = &api.ContainerAdjustment{}
	for _, b := range a.Binds {
		taken := func(m *api.Mount) bool { return m.GetDestination() == b.Target }
		if !slices.ContainsFunc(c.GetMounts(), taken) { // what its owner mounts there is meant
			adjust.AddMount(&api.Mount{Source: b.Source, Destination: b.Target, Type: "bind", Options: oci.Options()})
		}
	}
	return adjust, ""
}

// wanted says what annotations say, the container's own first.
func (a *answers) wanted(pod *api.PodSandbox, c *api.Container) bool {
	value, ok := c.GetAnnotations()[Annotation]
	if !ok {
		value, ok = plugin.GetEffectiveAnnotation(pod, Annotation, c.GetName())
	}
	switch {
	case !ok:
		return a.Default
	case value == "on" || value == "off":
		return value == "on"
	}
	a.Log.Warn(fmt.Sprintf("annotation %s: on or off, not %q: taken for none", Annotation, value), "container", nameOf(pod, c))
	return a.Default
}

// has says whether a container was made with views.
func (a *answers) has(c *api.Container) bool {
	ours := func(m *api.Mount) bool {
		return slices.ContainsFunc(a.Binds, func(b oci.Bind) bool { return b.Source == m.GetSource() })
	}
	hook := func(h *api.Hook) bool {
		args := h.GetArgs()
		return len(args) > 2 && args[0] == "lensfs" && args[1] == "hook" && args[2] == "oci"
	}
	return slices.ContainsFunc(c.GetMounts(), ours) || slices.ContainsFunc(c.GetHooks().GetCreateContainer(), hook)
}

// recovered keeps a bug of ours from being an answer.
func (a *answers) recovered() {
	if p := recover(); p != nil {
		a.Log.Error("a bug, please report it", "panic", p, "stack", string(debug.Stack()))
	}
}

func nameOf(pod *api.PodSandbox, c *api.Container) string {
	return pod.GetNamespace() + "/" + pod.GetName() + "/" + c.GetName()
}
