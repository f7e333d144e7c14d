// GraphiQL with a token, and the worked examples in tabs. The token is held in this page alone: reloading forgets it.
"use strict";

(async () => {
  const token = document.getElementById("token");
  const authorization = () => (token.value.trim() ? { Authorization: `Bearer ${token.value.trim()}` } : {});
  document.getElementById("who").addEventListener("submit", (event) => event.preventDefault());

  const examples = await (await fetch("/graphql/examples.json")).json();
  const sockets = location.href.replace(/^http/, "ws").split(/[?#]/)[0];

  // Made anew for what is asked: over WebSocket the token goes with the connection.
  const fetcher = (asked, options) =>
    GraphiQL.createFetcher({
      url: "/graphql",
      headers: authorization(),
      subscriptionUrl: sockets,
      wsConnectionParams: authorization(),
    })(asked, options);

  // The schema is asked for with a token: it is there once one is typed.
  const App = () => {
    const [known, setKnown] = React.useState(0);
    React.useEffect(() => {
      token.addEventListener("change", () => setKnown((before) => before + 1));
    }, []);
    return React.createElement(GraphiQL, {
      key: known,
      fetcher,
      storage: memory,
      defaultTabs: examples,
      variables: examples[0].variables,
      shouldPersistHeaders: false,
      defaultEditorToolsVisibility: "variables",
      inputValueDeprecation: true,
    });
  };

  // What is asked may name persons: nothing of it is left in the browser's storage.
  const kept = new Map();
  const memory = {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => kept.set(name, value),
    removeItem: (name) => kept.delete(name),
    clear: () => kept.clear(),
    get length() {
      return kept.size;
    },
  };

  ReactDOM.createRoot(document.getElementById("graphiql")).render(React.createElement(App));
})();
