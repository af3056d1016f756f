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

// There is no Kubernetes here: what is tested is that the manifest is YAML, that its commands are ones that this lensfs takes, and that both containers
// and the node mean the same directory by the same path, since the runtime on the node mounts what the plugin says.
func TestKubernetesManifest(t *testing.T) {
	file, err := os.Open("../share/kubernetes/lensfs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []manifest
	for dec := yaml.NewDecoder(file); ; {
		var m manifest
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	if len(all) != 2 || all[0].Kind != "Namespace" || all[1].Kind != "DaemonSet" || all[1].Metadata.Namespace != all[0].Metadata.Name {
		t.Fatalf("it has %+v", all)
	}
	set := all[1].Spec
	pod := set.Template.Spec
	if !pod.HostPID || set.UpdateStrategy.Type != "OnDelete" || set.Template.Metadata.Annotations["views.lensfs.dev"] != "off" || len(pod.Containers) != 2 {
		t.Errorf("the pod is %+v", set)
	}
	on := map[string]string{}
	for _, v := range pod.Volumes {
		on[v.Name] = v.HostPath.Path
	}
	var views []string
	for i, c := range pod.Containers {
		if _, err := tryCommand(binary, append(c.Command[1:], "--help")...); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		for _, m := range c.VolumeMounts {
			if on[m.Name] != m.Path {
				t.Errorf("%s: %s is %s on the node", c.Name, m.Path, on[m.Name])
			}
			if want := []string{"Bidirectional", "HostToContainer"}[i]; m.Name == "run" && m.Propagation != want {
				t.Errorf("%s: %s, not %s", c.Name, m.Propagation, want)
			}
		}
		views = append(views, c.Command[slices.Index(c.Command, "--views")+1])
		if !strings.HasPrefix(views[i], on["run"]+"/") {
			t.Errorf("%s: views on %s", c.Name, views[i])
		}
	}
	if views[0] != views[1] {
		t.Errorf("views on %q", views)
	}
}
