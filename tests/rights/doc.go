// Package rights tests who may do what: `thaw help security` says what is promised, and names the test of
// each promise. Users other than root try to read guest memory by every path that there is.
package rights
