// The fake server as a program, for measurements of clients: every answer has as many tokens as are
// asked for, the first after TTFT_MS, the others GAP_MS apart. Prints its port; ends with stdin.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/support/fake_sse_server.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: fake_sse_server TTFT_MS GAP_MS\n", stderr);
    return EXIT_FAILURE;
  }
  const double ttft_ms = std::atof(argv[1]);
  const double gap_ms = std::atof(argv[2]);
  tessera::testing::FakeSseServer server([=](const tessera::testing::FakeRequest& request) {
    std::vector<double> delays(static_cast<size_t>(std::max<int64_t>(request.wanted_tokens, 1)),
                               gap_ms);
    delays[0] = ttft_ms;
    return tessera::testing::chat_answer(delays);
  });
  std::printf("%d\n", static_cast<int>(server.port()));
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return EXIT_SUCCESS;
}
