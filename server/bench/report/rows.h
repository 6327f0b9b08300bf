// The rows that the tables of a terminal and of a page share.
#pragma once

#include <string>
#include <vector>

#include "server/bench/summary.h"

namespace tessera::bench {

using Row = std::vector<std::string>;

/// printf for one number.
[[nodiscard]] std::string fixed(double value, int digits);

/// Name and value: load, counts, throughput, goodput, client.
[[nodiscard]] std::vector<Row> figure_rows(const LoadResult& result, const Summary& summary);

/// A heading, then a row a latency: count, mean, percentiles, maximum. "-" where too few samples
/// lie beyond a percentile.
[[nodiscard]] std::vector<Row> latency_rows(const Summary& summary);

/// "poisson 20/s, random 512 in, 128 out" and so on.
[[nodiscard]] std::string describe_load(const BenchSettings& settings);

}  // namespace tessera::bench
