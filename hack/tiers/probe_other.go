//go:build !linux

package main

import "context"

const linuxOnly = "needs Linux"

func probeHook(context.Context) string { return linuxOnly }
func probeLab(context.Context) string  { return linuxOnly }
func probeMesh(context.Context) string { return linuxOnly }

func probeNamespaces(context.Context) string { return linuxOnly }
func probeChild() int                        { return 1 }
