//go:build tools

// Package policies names the program that enforces NetworkPolicies on the test's node: the firewall of
// kube-router. It is a module of its own, since it needs older libraries of Kubernetes than the node.
package policies

import _ "github.com/cloudnativelabs/kube-router/v2/pkg/cmd"
