package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// pair is a type of ours and the published one.
type pair struct{ ours, published reflect.Type }

func pairOf[O, P any]() pair { return pair{reflect.TypeFor[O](), reflect.TypeFor[P]()} }

// TestFieldsArePublished holds every field against that of the published types.
func TestFieldsArePublished(t *testing.T) {
	for _, p := range []pair{
		pairOf[Pod, corev1.Pod](), pairOf[PodList, corev1.PodList](),
		pairOf[Namespace, corev1.Namespace](), pairOf[NamespaceList, corev1.NamespaceList](),
		pairOf[ServiceAccount, corev1.ServiceAccount](), pairOf[EventList, corev1.EventList](),
		pairOf[SelfSubjectReview, authenticationv1.SelfSubjectReview](),
		pairOf[SelfSubjectAccessReview, authorizationv1.SelfSubjectAccessReview](),
		pairOf[Role, rbacv1.Role](), pairOf[RoleBinding, rbacv1.RoleBinding](),
		pairOf[ValidatingAdmissionPolicy, admissionv1.ValidatingAdmissionPolicy](),
		pairOf[ValidatingAdmissionPolicyBinding, admissionv1.ValidatingAdmissionPolicyBinding](),
	} {
		t.Run(p.ours.Name(), func(t *testing.T) { compare(t, p.ours.Name(), p, false) })
	}
}

// TestCopiedFieldsAreComplete holds what an agent's container copies against the
// published types: a field that were missing would be lost on the way.
func TestCopiedFieldsAreComplete(t *testing.T) {
	for _, p := range []pair{
		pairOf[EnvVar, corev1.EnvVar](), pairOf[EnvFromSource, corev1.EnvFromSource](), pairOf[VolumeMount, corev1.VolumeMount](),
	} {
		t.Run(p.ours.Name(), func(t *testing.T) { compare(t, p.ours.Name(), p, true) })
	}
}

// compare fails if a field at path is not encoded as the published one, or, if all
// must be there, is missing.
func compare(t *testing.T, path string, p pair, all bool) {
	if p.ours == p.published {
		return
	}
	if p.ours.Kind() != p.published.Kind() {
		t.Errorf("%s is a %s, published is a %s", path, p.ours.Kind(), p.published.Kind())
		return
	}
	switch p.ours.Kind() {
	case reflect.Pointer, reflect.Slice:
		compare(t, path, pair{p.ours.Elem(), p.published.Elem()}, all)
	case reflect.Map:
		compare(t, path+" key", pair{p.ours.Key(), p.published.Key()}, all)
		compare(t, path, pair{p.ours.Elem(), p.published.Elem()}, all)
	case reflect.Struct:
		ours, published := encoded(p.ours), encoded(p.published)
		for key, of := range ours {
			if _, ok := published[key]; !ok {
				t.Errorf("%s.%s: no field of the published type is encoded so", path, key)
				continue
			}
			compare(t, path+"."+key, pair{of, published[key]}, all)
		}
		for key := range published {
			if _, ok := ours[key]; all && !ok {
				t.Errorf("%s.%s is missing", path, key)
			}
		}
	}
}

// encoded returns the types of a struct's fields by their JSON tags, those of
// embedded structs that have no name in JSON included.
func encoded(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-":
		case f.Anonymous && name == "":
			maps.Copy(out, encoded(f.Type))
		default:
			out[tag] = f.Type
		}
	}
	return out
}

func TestConstantsArePublished(t *testing.T) {
	for ours, published := range map[string]string{
		MirrorPodAnnotationKey: corev1.MirrorPodAnnotationKey, LabelOSStable: corev1.LabelOSStable, Windows: string(corev1.Windows),
		ResourceMemory: string(corev1.ResourceMemory),
		PodPending:     string(corev1.PodPending), PodRunning: string(corev1.PodRunning), PodSucceeded: string(corev1.PodSucceeded), PodFailed: string(corev1.PodFailed),
		PodReady: string(corev1.PodReady), PodScheduled: string(corev1.PodScheduled), DisruptionTarget: string(corev1.DisruptionTarget),
		ConditionTrue: string(corev1.ConditionTrue), ConditionFalse: string(corev1.ConditionFalse),
		ContainerRestartPolicyAlways: string(corev1.ContainerRestartPolicyAlways), PullIfNotPresent: string(corev1.PullIfNotPresent),
		TerminationMessagePathDefault: corev1.TerminationMessagePathDefault, TerminationMessageReadFile: string(corev1.TerminationMessageReadFile),
		SeccompProfileTypeRuntimeDefault: string(corev1.SeccompProfileTypeRuntimeDefault),
		StreamType:                       corev1.StreamType, StreamTypeStdin: corev1.StreamTypeStdin, StreamTypeStdout: corev1.StreamTypeStdout,
		StreamTypeData: corev1.StreamTypeData, StreamTypeError: corev1.StreamTypeError,
		PortHeader: corev1.PortHeader, PortForwardRequestIDHeader: corev1.PortForwardRequestIDHeader,
		RBACGroup: rbacv1.GroupName, UserKind: rbacv1.UserKind, GroupKind: rbacv1.GroupKind, ServiceAccountKind: rbacv1.ServiceAccountKind,
		AdmissionVersion: admissionv1.SchemeGroupVersion.String(),
		Fail:             string(admissionv1.Fail), Equivalent: string(admissionv1.Equivalent), Create: string(admissionv1.Create),
		Update: string(admissionv1.Update), Deny: string(admissionv1.Deny),
	} {
		if ours != published {
			t.Errorf("%q is published as %q", ours, published)
		}
	}
}

// TestStored decodes an ephemeral container that has fields which are not known here.
func TestStored(t *testing.T) {
	const text = `{"name":"a","image":"x","future":{"b":[1,2]},"ports":[{"containerPort":1}]}`
	var list []EphemeralContainer
	if err := json.Unmarshal([]byte("["+text+`,{"name":"b"}]`), &list); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(list[0].Stored)); diff != "" {
		t.Errorf("stored (-want +got)\n%s", diff)
	}
	if names := []string{list[0].Name, list[1].Name}; !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("names are %q", names)
	}
	b, err := json.Marshal(list[1])
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"name":"b","resources":{}}`; string(b) != want {
		t.Errorf("encoded as %s, want %s", b, want)
	}
	if err := json.Unmarshal([]byte(`{"name":1}`), new(EphemeralContainer)); err == nil {
		t.Error("a name that is a number is decoded")
	}
}
