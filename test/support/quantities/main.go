// Reads quantities from the standard input, one a line as a JSON string, by Kubernetes' own reader.
// Prints a line for each: "error", or the amount rounded away from zero. Not Quantity.Value(), which
// is wrong for negative fractions and wraps above 64 bits.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"gopkg.in/inf.v0"
	"k8s.io/apimachinery/pkg/api/resource"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		var text string
		if err := json.Unmarshal(lines.Bytes(), &text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			fmt.Fprintln(out, "error")
			continue
		}
		amount := quantity.AsDec()
		fmt.Fprintln(out, amount.Round(amount, 0, inf.RoundUp).String())
	}
}
