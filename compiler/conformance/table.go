package conformance

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// Peer is what a table of other implementations says about a case.
type Peer struct {
	Op, Family, Category, ORT string
}

// ReadPeers reads a tab-separated table with the columns case, main_op,
// family, category and ort_result, by case name.
func ReadPeers(file string) (map[string]Peer, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot be read: %w", err).InFile(file)
	}
	defer f.Close()
	peers := map[string]Peer{}
	var col map[string]int
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		cells := strings.Split(sc.Text(), "\t")
		if col == nil {
			col = map[string]int{}
			for i, c := range cells {
				col[c] = i
			}
			continue
		}
		cell := func(name string) string {
			if i, ok := col[name]; ok && i < len(cells) {
				return cells[i]
			}
			return ""
		}
		peers[cell("case")] = Peer{Op: cell("main_op"), Family: cell("family"), Category: cell("category"), ORT: cell("ort_result")}
	}
	return peers, sc.Err()
}

// Group is a row of a summary.
type Group struct {
	Name                                               string
	Cases, Pass, Fail, Unsupported, Specialized, Peers int
}

// Groups sums a report up by a key of the case; peers may be nil.
func (rep *Report) Groups(peers map[string]Peer, key func(Result, Peer) string) []Group {
	by := map[string]*Group{}
	for _, r := range rep.Cases {
		p := peers[path.Base(r.Name)]
		k := key(r, p)
		g := by[k]
		if g == nil {
			g = &Group{Name: k}
			by[k] = g
		}
		g.Cases++
		switch r.Status {
		case Pass:
			g.Pass++
			if len(r.Bound) > 0 {
				g.Specialized++
			}
		case Fail:
			g.Fail++
		case Unsupported:
			g.Unsupported++
		}
		if strings.HasPrefix(p.ORT, "pass") {
			g.Peers++
		}
	}
	var out []Group
	for _, g := range by {
		out = append(out, *g)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// ByFamily is the key of the table by operator family.
func ByFamily(_ Result, p Peer) string {
	if p.Family == "" {
		return "other"
	}
	return p.Family
}

// WriteTable prints the summary by family, and the refusals by op and reason.
func (rep *Report) WriteTable(w io.Writer, peers map[string]Peer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%s\tcases\tpass\tfail\tunsupported\tspecialized\tORT 1.30\t\n", rep.Backend)
	var all Group
	for _, g := range rep.Groups(peers, ByFamily) {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", g.Name, g.Cases, g.Pass, g.Fail, g.Unsupported, g.Specialized, g.Peers)
		all.Peers += g.Peers
	}
	fmt.Fprintf(tw, "ALL\t%d\t%d\t%d\t%d\t%d\t%d\t\n", len(rep.Cases), rep.Pass, rep.Fail, rep.Unsupported, rep.Specialized, all.Peers)
	if err := tw.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%d of the passes need the lenient rules\n", rep.Lenient); err != nil {
		return err
	}
	reasons := map[string]int{}
	for _, r := range rep.Cases {
		if r.Status == Unsupported {
			reasons[strings.TrimSpace(r.Op+": "+r.Reason)]++
		}
	}
	keys := make([]string, 0, len(reasons))
	for k := range reasons {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if reasons[keys[i]] != reasons[keys[j]] {
			return reasons[keys[i]] > reasons[keys[j]]
		}
		return keys[i] < keys[j]
	})
	for _, k := range keys {
		if _, err := fmt.Fprintf(w, "%6d refused  %s\n", reasons[k], k); err != nil {
			return err
		}
	}
	return nil
}
