package launch

import (
	"regexp"
	"slices"
	"strings"
)

// laptops are variables that describe the machine and the person, not the
// application: the pod's would break programs here.
var laptops = []string{
	"PATH", "HOME", "HOSTNAME", "TERM", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "LANG", "LANGUAGE",
	"TMPDIR", "TZDIR", "MAIL", "EDITOR", "PAGER", "DISPLAY",
}

// runtimes are variables that say where a language's runtime has its files, or
// how it starts: the pod's are for those of its image.
var runtimes = []string{
	"JRE_HOME", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "MAVEN_OPTS", "MAVEN_ARGS", "GRADLE_OPTS", "SBT_OPTS",
	"NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "NODE_REPL_EXTERNAL_MODULE", "VIRTUAL_ENV", "GEM_HOME", "GEM_PATH", "RUBYOPT", "RUBYLIB", "BUNDLE_PATH", "BUNDLE_GEMFILE",
	"GOROOT", "GOPATH", "GOBIN", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOENV", "GOTOOLCHAIN", "RUSTUP_HOME", "PHPRC", "PHP_INI_SCAN_DIR",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE",
}

// dangerous are variables by which a shell, a loader or a library runs code of
// whoever set them. They come from a pod, which is not trusted with the laptop.
var dangerous = []string{
	"ENV", "BASH_ENV", "PROMPT_COMMAND", "PS0", "PS1", "PS2", "PS3", "PS4", "IFS", "SHELLOPTS", "BASHOPTS", "CDPATH", "ZDOTDIR",
	"GCONV_PATH", "HOSTALIASES", "RES_OPTIONS", "LOCALDOMAIN", "OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "VISUAL", "BROWSER",
	"LESSOPEN", "LESSCLOSE", "MANPAGER", "GLIBC_TUNABLES", "MALLOC_TRACE",
	"MAKEFLAGS", "GNUMAKEFLAGS", "MFLAGS", "TAR_OPTIONS", "RSYNC_RSH", "VIMINIT", "EXINIT", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER",
}

// keptPrefixes are families of variables of all these kinds.
var keptPrefixes = []string{
	"XDG_", "LC_", "LD_", "BASH_FUNC_", "GIT_", "SSH_", "JAVA_", "PYTHON", "PERL", "LUA_", "CONDA_", "NIX_", "CARGO_", "PIP_", "YARN_",
	"DOTNET_", "CORECLR_", "COR_", "DYLD_",
}

// foldedPrefixes are such families whose readers take upper and lower case alike.
var foldedPrefixes = []string{"npm_config_"}

// Excluded are the names of what is not taken from a pod, sorted, * standing for any end
// and, with a proxy, any beginning.
func Excluded() []string {
	names := slices.Concat(laptops, runtimes, dangerous, []string{"*_PROXY", "*_proxy"})
	for _, p := range slices.Concat(keptPrefixes, foldedPrefixes) {
		names = append(names, p+"*")
	}
	slices.Sort(names)
	return names
}

// own begins the variables of borrownet itself, which no pod sets.
const own = "BORROWNET_"

// told are those that tell a program which session it runs in.
var told = []string{SessionVar, PodVar, NamespaceVar}

// identities are the laptop's variables that give a program an identity, which
// the pod's would be shadowed by.
var identities = []string{
	"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
	"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
	"GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET",
}

// identityPrefixes are families of them.
var identityPrefixes = []string{"AWS_CONTAINER_", "AWS_SSO_", "CLOUDSDK_AUTH_", "AZURE_"}

// plainName is a variable's name as programs and shells understand it.
var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// IsVariable reports whether kv is NAME=VALUE with a name that programs and
// shells understand.
func IsVariable(kv string) bool {
	name, value, ok := strings.Cut(kv, "=")
	return ok && plainName.MatchString(name) && !strings.ContainsRune(value, 0)
}

// excluded reports whether the pod's variable name is left out unless it is
// asked for.
func excluded(name string) bool {
	return slices.Contains(laptops, name) || slices.Contains(runtimes, name) || slices.Contains(dangerous, name) ||
		isProxy(name) || hasPrefix(name, keptPrefixes) || hasPrefix(strings.ToLower(name), foldedPrefixes)
}

func isProxy(name string) bool { return strings.HasSuffix(strings.ToLower(name), "_proxy") }

func isIdentity(name string) bool {
	return slices.Contains(identities, name) || hasPrefix(name, identityPrefixes)
}

func hasPrefix(name string, list []string) bool {
	return slices.ContainsFunc(list, func(p string) bool { return strings.HasPrefix(name, p) })
}
