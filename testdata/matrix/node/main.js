console.log(require("one"));
