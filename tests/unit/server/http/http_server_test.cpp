#include "server/http/http_server.h"

#include <stdexcept>

#include <gtest/gtest.h>

#include "tests/unit/server/http/http_server_fixture.h"

namespace tessera::http {
namespace {

TEST(HttpServerTest, AnswersARequest) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(
      client.send("POST /v1/x%20y?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->head.substr(0, 17), "HTTP/1.1 200 OK\r\n");
  EXPECT_EQ(response->body, "POST /v1/x y?a=b hello");
  EXPECT_EQ(response->header("Content-Type"), "text/plain");
  EXPECT_EQ(response->header("Server"), "tessera");
  EXPECT_EQ(response->header("Connection"), "keep-alive");
}

TEST(HttpServerTest, HandsOverHeadersAndPeerAddress) {
  ExchangeQueue queue;
  const auto server = start_server({}, queue.handler());
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID:  abc \r\n\r\n"));
  Request request;
  const auto exchange = queue.pop(&request);
  ASSERT_NE(exchange, nullptr);
  EXPECT_EQ(request.header("x-request-id"), "abc");
  EXPECT_EQ(request.header("absent"), std::nullopt);
  EXPECT_EQ(request.remote_address, "127.0.0.1");
}

TEST(HttpServerTest, KeepsTheConnectionForTheNextRequest) {
  Gauge open_connections;
  HttpServerOptions options;
  options.open_connections = &open_connections;
  auto server = start_server(options, echo);
  RawHttpClient client(server->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(kGet));
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->body, "GET /a? ");
  }
  EXPECT_EQ(server->num_connections_approx(), 1);
  EXPECT_EQ(open_connections.value(), 1);
  server.reset();
  EXPECT_EQ(open_connections.value(), 0);
}

TEST(HttpServerTest, AnswersPipelinedRequestsInOrderOneAtATime) {
  ExchangeQueue queue;
  const auto server = start_server({}, queue.handler());
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send(
      "POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
      "GET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\n\r\n"));
  for (int i = 1; i <= 3; ++i) {
    Request request;
    const auto exchange = queue.pop(&request);
    ASSERT_NE(exchange, nullptr);
    EXPECT_EQ(request.path, "/" + std::to_string(i));
    EXPECT_EQ(queue.size(), 0U);
    Response response;
    response.body = request.path + request.body;
    exchange->respond(response);
    const auto answer = client.read_response();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->body, i == 1 ? "/1abc" : request.path);
  }
}

TEST(HttpServerTest, ToleratesAnEmptyLineAfterABody) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nz\r\n"));
  ASSERT_TRUE(client.read_response().has_value());
  ASSERT_TRUE(client.send(kGet));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 200);
}

TEST(HttpServerTest, ClosesWhenTheClientAsksForIt) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->header("Connection"), "close");
  EXPECT_TRUE(client.is_closed_silently());
}

TEST(HttpServerTest, SpeaksHttp10) {
  const auto server = start_server({}, echo);
  RawHttpClient once(server->port());
  ASSERT_TRUE(once.send("GET /a HTTP/1.0\r\n\r\n"));
  const auto response = once.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->body, "GET /a? ");
  EXPECT_TRUE(once.is_closed_silently());

  RawHttpClient kept(server->port());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(kept.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    const auto again = kept.read_response();
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->header("Connection"), "keep-alive");
  }
}

TEST(HttpServerTest, AnswersAClientThatHalfClosesAfterItsRequest) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  client.shutdown_write();
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->body, "GET /a? ");
}

TEST(HttpServerTest, SendsNoBodyForHead) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"));
  ASSERT_TRUE(client.send(kGet));
  const auto head = client.read_response(false);
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->header("Content-Length"), "9");
  const auto next = client.read_response();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->body, "GET /a? ");
}

TEST(HttpServerTest, LeavesUnknownMethodsToTheHandler) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send("BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n"));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->body, "BREW /pot? ");
}

TEST(HttpServerTest, SaysContinueBeforeAnExpectedBody) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send(
      "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  ASSERT_TRUE(client.send("ok"));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->body, "POST /a? ok");
}

TEST(HttpServerTest, AnswersFromAnotherThread) {
  ExchangeQueue queue;
  const auto server = start_server({}, queue.handler());
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send(kGet));
  const auto exchange = queue.pop();
  ASSERT_NE(exchange, nullptr);
  Response response;
  response.status = 429;
  response.headers = {{"Retry-After", "1"}, {"X-Bad", "a\r\nSet-Cookie: b"}, {"Bad Name", "c"}};
  response.body = "{}";
  exchange->respond(response);
  exchange->respond(response);  // a second answer is ignored
  const auto answer = client.read_response();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 429);
  EXPECT_EQ(answer->header("Retry-After"), "1");
  EXPECT_EQ(answer->header("X-Bad"), "a  Set-Cookie: b");
  EXPECT_EQ(answer->header("Set-Cookie"), "");
  EXPECT_EQ(answer->head.find("Bad Name"), std::string::npos);
}

TEST(HttpServerTest, AnswersDroppedRequestsWith500) {
  const auto server = start_server({}, [](const Request&, const std::shared_ptr<Exchange>&) {});
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send(kGet));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 500);
}

TEST(HttpServerTest, SurvivesAHandlerThatThrows) {
  const auto server = start_server({}, [](const Request&, const std::shared_ptr<Exchange>&) {
    throw std::runtime_error("handler bug");
  });
  for (int i = 0; i < 2; ++i) {
    RawHttpClient client(server->port());
    ASSERT_TRUE(client.send(kGet));
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->status, 500);
  }
}

TEST(HttpServerTest, RunsPostedTasksInOrderOnTheHttpThread) {
  ExchangeQueue queue;
  std::thread::id http_thread;
  const Handler collect = queue.handler();
  const auto server = start_server({}, [&](Request request, std::shared_ptr<Exchange> exchange) {
    http_thread = std::this_thread::get_id();
    collect(std::move(request), std::move(exchange));
  });
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send(kGet));
  const auto exchange = queue.pop();
  ASSERT_NE(exchange, nullptr);
  std::vector<int> order;
  std::vector<std::thread::id> threads;
  Signal done;
  for (int i = 0; i < 100; ++i) {
    exchange->post([&, i] {
      order.push_back(i);
      threads.push_back(std::this_thread::get_id());
      if (i == 99) {
        done.set();
      }
    });
  }
  ASSERT_TRUE(done.wait());
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(order[static_cast<size_t>(i)], i);
    EXPECT_TRUE(threads[static_cast<size_t>(i)] == http_thread);
  }
}

TEST(HttpServerTest, ListensOnIpv6AndOnLocalhost) {
  HttpServerOptions options;
  options.host = "localhost";
  const auto local = start_server(options, echo);
  RawHttpClient v4(local->port());
  ASSERT_TRUE(v4.is_connected());
  ASSERT_TRUE(v4.send(kGet));
  EXPECT_TRUE(v4.read_response().has_value());

  options.host = "[::1]";
  options.port = 0;
  Result<std::unique_ptr<HttpServer>> v6_server =
      HttpServer::start(options, echo, [](int, std::string_view) { return std::string(); });
  if (!v6_server.is_ok()) {  // a machine without IPv6: the error says so
    EXPECT_EQ(v6_server.status().code(), StatusCode::kUnavailable);
    return;
  }
  RawHttpClient v6(v6_server.value()->port(), 0, true);
  ASSERT_TRUE(v6.send(kGet));
  EXPECT_TRUE(v6.read_response().has_value());
}

TEST(HttpServerTest, ReportsAddressesThatCannotBeUsed) {
  const auto no_error_body = [](int, std::string_view) { return std::string(); };
  const auto first = start_server({}, echo);
  HttpServerOptions options;
  options.port = first->port();
  EXPECT_EQ(HttpServer::start(options, echo, no_error_body).status().code(),
            StatusCode::kUnavailable);
  options.host = "not a host";
  EXPECT_EQ(HttpServer::start(options, echo, no_error_body).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::http
