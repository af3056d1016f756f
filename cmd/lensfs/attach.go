package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lensfs/attach"
	"lensfs/fs/keeper"

	"github.com/spf13/cobra"
)

// attachOptions say which containers are given views, and by whom.
type attachOptions struct {
	which
	all, old, dry bool
	beneath       string
}

func attachCommand() *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach PID… | attach --all",
		Short: "Give views to containers that already run",
		Long: "attach puts the views of a running \"lensfs serve\" into containers that run already, without restarting them: over the kernel's files, and in place\n" +
			"of views of LXCFS or of a daemon that has ended (\"Transport endpoint is not connected\"). A container that has views of this daemon is left as it is.\n\n" +
			"PID is any process of the container, as the host numbers it; its mount namespace is the one that is changed. With --all, a container is what has a pid\n" +
			"namespace, a mount namespace, a cgroup, and a root file system of its own: services of systemd are none. Files that a process has open stay what\n" +
			"they are until it opens them again.",
		Example: "  lensfs attach $(lxc-info -n web -p -H)\n" +
			"  lensfs attach --all --dry-run                # what would be done\n" +
			"  lensfs attach --all --lxcfs-only             # take over from LXCFS, or heal what a dead daemon left\n" +
			"  lensfs attach --all --beneath /kubepods.slice",
		Args: func(_ *cobra.Command, args []string) error {
			if o.all == (len(args) > 0) {
				return errors.New("give the PID of a process in the container, or --all")
			}
			if !o.all && (o.old || o.beneath != "") {
				return errors.New("--lxcfs-only and --beneath choose among the containers of --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runAttach(cmd, o, args) },
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "all containers on this host")
	f.BoolVar(&o.old, "lxcfs-only", false, "with --all: only those with views of LXCFS, or of a daemon that has ended or is another")
	f.StringVar(&o.beneath, "beneath", "", "with --all: only those whose cgroup is this `group`, or beneath it")
	f.BoolVar(&o.dry, "dry-run", false, "say what would be done, and do nothing")
	return cmd
}

// attachChild is the name of the command that attach runs for each container.
const attachChild = "attach-child"

func attachChildCommand() *cobra.Command {
	return &cobra.Command{
		Use:    attachChild,
		Short:  "What goes into one container, started by attach",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return attach.Enter(cmd.InOrStdin(), cmd.OutOrStdout(), os.NewFile(3, "process"))
		},
	}
}

func runAttach(cmd *cobra.Command, o attachOptions, args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("only root may change what containers have mounted: run it with sudo")
	}
	served, err := o.served()
	if err != nil {
		return err
	}
	host, err := attach.LookAtHost()
	if err != nil {
		return err
	}
	table, failed := rows{{"CONTAINER", "PID", "VIEWS"}}, 0
	each := func(pid int, do func() (string, string, error)) {
		name, what, err := do()
		if err != nil {
			what = "failed: " + err.Error()
			failed++
		}
		table = append(table, []string{cmp.Or(printable(name), unknown), strconv.Itoa(pid), printable(what)})
	}
	var all []*attach.Process
	if o.all {
		if all, err = o.chosen(host, served); err != nil {
			return err
		}
	}
	for _, p := range all {
		each(p.Pid, func() (string, string, error) { return o.attach(p, served) })
		p.Close()
	}
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err != nil || pid < 1 {
			return fmt.Errorf("%q: give the number of a process", arg)
		}
		each(pid, func() (string, string, error) {
			p, err := attach.Open(pid)
			if err != nil {
				return "", "", err
			}
			defer p.Close()
			if err := host.Check(p); err != nil {
				return "", "", err
			}
			return o.attach(p, served)
		})
	}
	if len(table) == 1 {
		table = rows{{"there is no such container"}}
	}
	if err := table.print(cmd.OutOrStdout()); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d containers have not been given all their views", failed, len(table)-1)
	}
	return nil
}

// served asks the daemon where it serves.
func (o *attachOptions) served() (s attach.Served, err error) {
	now, err := askStatus(&o.which)
	if err != nil {
		return s, err
	}
	for _, m := range now.Mounts {
		switch m.Kind {
		case "tree":
			s.Tree = attach.Mount{Dir: m.Dir, Device: m.Device}
		case "views":
			s.Views = attach.Mount{Dir: m.Dir, Device: m.Device}
		}
	}
	return s, nil
}

// chosen gives the containers that the flags leave.
func (o *attachOptions) chosen(host *attach.Host, served attach.Served) (chosen []*attach.Process, err error) {
	all, err := host.Find()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if o.wants(p, served) {
			chosen = append(chosen, p)
		} else {
			p.Close()
		}
	}
	return chosen, nil
}

// wants is false too of what has ended meanwhile.
func (o *attachOptions) wants(p *attach.Process, served attach.Served) bool {
	if o.beneath != "" {
		groups, err := p.Groups()
		above := "/" + strings.Trim(o.beneath, "/")
		if err != nil || !slices.ContainsFunc(groups, func(g string) bool { return g == above || strings.HasPrefix(g, above+"/") }) {
			return false
		}
	}
	if !o.old {
		return true
	}
	old, err := p.HasOld(served)
	return err == nil && old
}

// attach gives views to the container of p. It gives its name, and in words what was done.
func (o *attachOptions) attach(p *attach.Process, served attach.Served) (name, what string, err error) {
	view, err := keeper.ViewOf(o.stateDir(), o.dir(), p.Pid)
	if err != nil {
		return "", "", fmt.Errorf("ask the daemon for its view (an older version? \"lensfs upgrade\"): %w", err)
	}
	if err := p.Runs(); err != nil {
		return view.Container, "", fmt.Errorf("it has ended: %w", err)
	}
	if view.Container == "" {
		return "", "", errors.New("the daemon takes it for a part of the host: the first process of its pid namespace cannot be found")
	}
	plan := attach.Plan{From: served.Tree.Dir, Served: served, Dry: o.dry}
	if served.Views.Dir != "" {
		plan.From = filepath.Join(served.Views.Dir, "ct", view.Container)
	}
	r, err := p.Attach(attachChild, plan)
	if err != nil {
		return view.Container, "", err
	}
	if len(r.Failed) > 0 {
		return view.Container, "", errors.New(strings.Join(append(r.Failed, r.Skipped...), "; "))
	}
	return view.Container, o.words(r), nil
}

// words tells of a result. All of what is counted are files but for the directory of CPUs.
func (o *attachOptions) words(r attach.Result) string {
	verb := ""
	if o.dry {
		verb = "would be "
	}
	var parts []string
	add := func(list []string, text string) {
		if len(list) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", len(list), text))
		}
	}
	add(r.Put, verb+"put over the kernel's files")
	add(r.Replaced, verb+"put in place of LXCFS's or dead ones")
	if len(parts) == 0 && len(r.Kept) > 0 {
		parts = append(parts, "has them already")
	}
	if len(parts) == 0 {
		parts = append(parts, "none: it has none of these files")
	}
	return strings.Join(append(parts, r.Skipped...), "; ")
}
