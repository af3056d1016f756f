package e2e

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// manifest is what these tests look at of one.
type manifest struct {
	Kind     string
	Metadata struct{ Namespace, Name string }
	Spec     struct {
		UpdateStrategy struct{ Type string } `yaml:"updateStrategy"`
		Template       struct {
			Metadata struct{ Annotations map[string]string }
			Spec     struct {
				HostPID    bool `yaml:"hostPID"`
				Containers []struct {
					Name         string
					Command      []string
					VolumeMounts []struct {
						Name        string
						Path        string `yaml:"mountPath"`
						Propagation string `yaml:"mountPropagation"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name     string
					HostPath struct{ Path, Type string } `yaml:"hostPath"`
				}
			}
		}
	}
}

// There is no Kubernetes here: what is tested is that the manifests are YAML, that their commands are ones that these programs take, and that both
// containers and the node mean the same by the same path, since the runtime on the node mounts what the plugin says.
func TestKubernetesManifest(t *testing.T) {
	for file, plugin := range map[string][]string{ // the flags of its plugin that name what is on the node
		"lensfs.yaml":     {"--views", "--socket"},
		"lensfs-cdi.yaml": {"--views", "--plugin-dir", "--cdi"},
	} {
		t.Run(file, func(t *testing.T) { checkManifest(t, "../share/kubernetes/"+file, plugin) })
	}
}

func checkManifest(t *testing.T, path string, flags []string) {
	all := readManifests(t, path)
	if len(all) != 2 || all[0].Kind != "Namespace" || all[1].Kind != "DaemonSet" || all[1].Metadata.Namespace != all[0].Metadata.Name {
		t.Fatalf("it has %+v", all)
	}
	set := all[1].Spec
	pod := set.Template.Spec
	if !pod.HostPID || set.UpdateStrategy.Type != "OnDelete" || set.Template.Metadata.Annotations["views.lensfs.dev"] != "off" || len(pod.Containers) != 2 {
		t.Errorf("the pod is %+v", set)
	}
	programs := map[string]string{"/usr/bin/lensfs": binary, "/usr/bin/lensfs-device-plugin": needDevicePlugin(t)}
	on := map[string]string{}
	for _, v := range pod.Volumes {
		on[v.Name] = v.HostPath.Path
	}
	var views []string
	for i, c := range pod.Containers {
		if _, err := tryCommand(programs[c.Command[0]], append(c.Command[1:], "--help")...); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		var has []string // of the node's folders
		for _, m := range c.VolumeMounts {
			if on[m.Name] != m.Path {
				t.Errorf("%s: %s is %s on the node", c.Name, m.Path, on[m.Name])
			}
			if want := []string{"Bidirectional", "HostToContainer"}[i]; m.Name == "run" && m.Propagation != want {
				t.Errorf("%s: %s, not %s", c.Name, m.Propagation, want)
			}
			has = append(has, m.Path)
		}
		for _, flag := range [][]string{{"--tree", "--views", "--runtime-dir"}, flags}[i] {
			at := slices.Index(c.Command, flag)
			if at < 0 {
				t.Errorf("%s: no %s", c.Name, flag)
				continue
			}
			value := c.Command[at+1]
			if !slices.ContainsFunc(has, func(dir string) bool { return value == dir || strings.HasPrefix(value, dir+"/") }) {
				t.Errorf("%s: %s %s, and it has %v of the node", c.Name, flag, value, has)
			}
			if flag == "--views" {
				views = append(views, value)
			}
		}
	}
	if len(views) != 2 || views[0] != views[1] || !strings.HasPrefix(views[0], on["run"]+"/") {
		t.Errorf("views on %q", views)
	}
}

func readManifests(t *testing.T, path string) (all []manifest) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for dec := yaml.NewDecoder(file); ; {
		var m manifest
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
}
